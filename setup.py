"""Build of the C++ extension, and the package list; every other fact stands in pyproject.toml.

The sources are found by folder: a new file in csrc/src, csrc/cpu or csrc/bindings needs no edit here.
Nothing here asks which machine it runs on: instruction sets are chosen when the program runs.
"""

from __future__ import annotations

import os
from glob import glob

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import find_packages, setup

SOURCE_FOLDERS = ("csrc/src", "csrc/cpu", "csrc/bindings")

# Translation units side by side; MODELSAT_BUILD_JOBS sets how many, otherwise one per processor.
ParallelCompile("MODELSAT_BUILD_JOBS").install()

# Without -ffp-contract=off the instruction sets would round differently.
posix_flags = [] if os.name == "nt" else ["-O3", "-g0", "-pthread", "-Wall", "-Wextra", "-ffp-contract=off"]
core = Pybind11Extension(
    "modelsat_engine._core",
    sources=sorted(path for folder in SOURCE_FOLDERS for path in glob(f"{folder}/*.cc")),
    depends=sorted(glob("csrc/**/*.h", recursive=True)),
    include_dirs=["csrc/include", "csrc"],
    cxx_std=17,
    extra_compile_args=posix_flags,
    extra_link_args=[] if os.name == "nt" else ["-pthread", "-ldl"],
)

# The top-level folder kernels/ is installed as modelsat_engine.kernels.
kernels = [f"modelsat_engine.{name}" for name in find_packages(include=["kernels", "kernels.*"])]
setup(
    packages=find_packages(include=["modelsat_engine", "modelsat_engine.*"]) + kernels,
    package_dir={"modelsat_engine.kernels": "kernels"},
    ext_modules=[core],
)
