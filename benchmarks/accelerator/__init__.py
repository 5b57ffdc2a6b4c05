"""Parts of benchmarks/gpu.py: timing on the device, ceilings of the machine, contenders, single kernels."""
