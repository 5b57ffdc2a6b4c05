"""The Model-SAT network in PyTorch: capability encoder, connector, trunk, head. Needs the `train` extra."""
