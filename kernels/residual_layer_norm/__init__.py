"""Residual addition and LayerNorm in one launch."""
