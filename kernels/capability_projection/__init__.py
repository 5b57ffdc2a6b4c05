"""Equation (2) of Model-SAT: the capability representation enters the trunk's embedding space."""
