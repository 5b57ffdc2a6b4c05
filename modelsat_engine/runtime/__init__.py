"""Scoring and routing: the engine, its candidates, its policies and its executors."""
