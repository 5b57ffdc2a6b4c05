"""Kernels run in Triton's interpreter here, or, with MODELSAT_TEST_DEVICE=cuda, compiled on the first GPU."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest

ON_GPU = os.environ.get("MODELSAT_TEST_DEVICE") == "cuda"
LEAST_TRITON = (3, 7, 1)  # older interpreters do not run with NumPy 2.4


def _use_interpreter() -> None:
    """Triton reads the variable when it is imported, so it is set first."""
    try:
        installed = version("triton")
    except PackageNotFoundError:
        raise pytest.UsageError("tests/kernels needs triton: pip install --group test") from None
    if tuple(int(part) for part in installed.split("+")[0].split(".")[:3]) < LEAST_TRITON:
        raise pytest.UsageError(f"tests/kernels needs triton 3.7.1 or later, not {installed}: pip install --group test")
    if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
        raise pytest.UsageError("triton was imported before tests/kernels asked for its interpreter; run it alone")
    os.environ["TRITON_INTERPRET"] = "1"


if ON_GPU:
    # these need no GPU, the next two no compiler, and the last one hands tensors to NumPy, which reads no device
    collect_ignore = ["test_aot.py", "test_cuda_forward.py", "test_cuda_passes.py", "test_plugin_graph.py"]
elif sys.platform == "linux":
    _use_interpreter()
else:
    collect_ignore_glob = ["test_*.py"]  # there is no Triton for this system


@pytest.fixture(autouse=True, scope="session")
def _bfloat16_products() -> Iterator[None]:
    """The interpreter keeps bfloat16 as 16-bit integers and multiplies those; here it multiplies the numbers."""
    if ON_GPU:
        yield
        return
    import numpy as np
    import triton.language as tl
    from triton.runtime import interpreter

    builder = interpreter.InterpreterBuilder
    original = builder.create_dot

    def widened(handle: Any) -> Any:
        if str(handle.dtype.scalar) != "bf16":
            return handle
        return interpreter.TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return original(self, widened(a), widened(b), *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "create_dot", create_dot)
        yield


@pytest.fixture(autouse=True)
def _device() -> Iterator[None]:
    """Every tensor of a test is made where its kernels run."""
    import torch

    torch.set_default_device("cuda" if ON_GPU else None)
    yield
    torch.set_default_device(None)


@pytest.fixture
def seed() -> int:
    """A fresh seed for every test, printed where it fails; MODELSAT_TEST_SEED repeats one."""
    import torch

    chosen = int(os.environ.get("MODELSAT_TEST_SEED") or random.SystemRandom().randrange(2**31))
    print(f"MODELSAT_TEST_SEED={chosen}")
    torch.manual_seed(chosen)
    return chosen
