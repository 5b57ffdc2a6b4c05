"""Attention of the instruction rows among themselves, over a packed batch."""
