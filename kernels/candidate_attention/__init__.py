"""Attention of the inquiry rows: own key, cached memory, shared instruction, in one softmax."""
