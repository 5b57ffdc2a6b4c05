"""Tests of the CUDA executor on an NVIDIA GPU; the kernels' own tests run there too, see tests/kernels/conftest.py."""

from __future__ import annotations

import os

import pytest


def _skip_reason() -> str | None:
    from modelsat_engine.runtime.executors.cuda_device import unavailable_reason

    reason = unavailable_reason()
    if reason is not None:
        return f"no GPU to test on: {reason}"
    if os.environ.get("MODELSAT_TEST_DEVICE") != "cuda":
        return "tests/kernels has Triton interpreted in this process; make gpu-check runs both on the GPU"
    return None


_REASON = _skip_reason()


@pytest.fixture(autouse=True, scope="session")  # before any other fixture
def _only_on_a_gpu() -> None:
    if _REASON is not None:
        pytest.skip(_REASON)
