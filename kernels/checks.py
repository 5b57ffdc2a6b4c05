"""What a launch demands of its tensors, said in one line where it is not met."""

from __future__ import annotations

import torch
from torch import Tensor

from modelsat_engine.errors import KernelError

#: What the kernels compute with.
FLOATS = (torch.float16, torch.bfloat16, torch.float32)


def check_tensor(
    name: str,
    tensor: Tensor,
    shape: tuple[int | None, ...],
    dtypes: torch.dtype | tuple[torch.dtype, ...],
    beside: Tensor,
    contiguous: bool = True,
) -> None:
    """Shape (None for any extent), dtype, device (that of `beside`) and layout of one argument.

    Raises:
        KernelError: something does not fit; the message names the argument and says what to pass.
    """
    wanted = dtypes if isinstance(dtypes, tuple) else (dtypes,)
    if tensor.device != beside.device:
        raise KernelError(f"{name} is on {tensor.device}, the other arguments on {beside.device}; move it there")
    if tensor.dtype not in wanted:
        known = " or ".join(str(dtype).removeprefix("torch.") for dtype in wanted)
        raise KernelError(f"{name} is {str(tensor.dtype).removeprefix('torch.')}; pass {known}")
    fits = len(shape) == tensor.dim() and all(w is None or w == s for w, s in zip(shape, tensor.shape, strict=True))
    if not fits:
        extents = ", ".join("any" if extent is None else str(extent) for extent in shape)
        raise KernelError(f"{name} has the shape {list(tensor.shape)}; pass [{extents}]")
    if contiguous and not tensor.is_contiguous():
        raise KernelError(f"{name} is not contiguous; pass {name}.contiguous()")


def row_stride(name: str, tensor: Tensor, inner: int) -> int:
    """Elements from one row to the next of a tensor whose last axes, `inner` elements together, lie side by side.

    Raises:
        KernelError: the rows are not evenly spaced, overlap, or have gaps inside.
    """
    expected = 1
    axes = list(zip(reversed(tensor.shape), reversed(tensor.stride()), strict=True))
    while axes and expected < inner:
        extent, stride = axes.pop(0)
        if extent > 1 and stride != expected:
            raise KernelError(
                f"the {inner} elements of a row of {name} do not lie side by side; pass a contiguous copy"
            )
        expected *= extent
    rows = [(extent, stride) for extent, stride in axes if extent > 1]
    if not rows:
        return inner
    step = rows[0][1]
    if step < inner:
        raise KernelError(f"the rows of {name} overlap; pass a contiguous copy")
    span = step
    for extent, stride in rows:
        if stride != span:
            raise KernelError(f"the rows of {name} are not evenly spaced; pass a contiguous copy")
        span *= extent
    return step
