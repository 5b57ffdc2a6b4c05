"""How a kernel's result is held to its fp64 reference, and how its writes are watched."""

from __future__ import annotations

import torch
from torch import Tensor

#: Largest error, as a share of the reference's own spread: a few roundings of the dtype in which results are stored.
TOLERANCES = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
DTYPES = tuple(TOLERANCES)
_GUARD_ROWS = 3
_GUARD = 12345.0


def random_tensor(*shape: int, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> Tensor:
    """Normal numbers, rounded to `dtype`, so that the reference starts from the very same ones."""
    return (torch.randn(*shape) * scale).to(dtype)


def wide(tensor: Tensor | None) -> Tensor | None:
    """fp64, or None."""
    return None if tensor is None else tensor.double()


class GuardedOutput:
    """An output buffer full of NaN between guard rows that a kernel must leave alone.

    Attributes:
        rows: the part to write to, NaN all over, contiguous.
    """

    def __init__(self, *shape: int, dtype: torch.dtype) -> None:
        count = torch.Size(shape).numel()
        guard = _GUARD_ROWS * (shape[-1] if shape else 1)
        self._all = torch.full((count + 2 * guard,), _GUARD, dtype=dtype)
        self._guards = [self._all[:guard], self._all[guard + count :]]
        self.rows = self._all[guard : guard + count].view(shape)
        if dtype.is_floating_point:
            self.rows.fill_(float("nan"))
        else:
            self.rows.fill_(-7)

    def check(self, reference: Tensor, tolerance: float) -> None:
        """Every element is finite and near the fp64 reference, and nothing beside them was written."""
        assert self.rows.isfinite().all(), "the kernel left elements unwritten, or computed no number"
        spread = reference.std(correction=0).clamp(min=1e-3) if reference.numel() > 1 else reference.abs()
        error = (self.rows.double() - reference).abs().max() / (spread + reference.abs().max())
        assert error <= tolerance, f"largest error {error:.2e} of the spread, allowed {tolerance:.0e}"
        self.check_guards()

    def check_guards(self) -> None:
        """Nothing beside the output was written."""
        assert all((guard == torch.tensor(_GUARD, dtype=guard.dtype)).all() for guard in self._guards)
