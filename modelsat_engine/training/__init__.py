"""Capability instruction tuning: samples, objectives, the two-stage trainer, calibration. Needs the `train` extra."""
