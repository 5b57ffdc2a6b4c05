"""From the inquiry rows' last state to calibrated probabilities, never through the vocabulary."""
