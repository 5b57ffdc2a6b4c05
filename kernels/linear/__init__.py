"""A linear layer with its bias and, where asked for, GELU: one launch."""
