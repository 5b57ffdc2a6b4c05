"""Token and position embedding out of int8 or float tables, added and normalised in one launch."""
