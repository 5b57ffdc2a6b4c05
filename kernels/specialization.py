"""One compiled form of a kernel: what is fixed when it is compiled, what is passed when it is launched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

#: torch dtype -> Triton's name of it.
TRITON_TYPES = {
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.int8: "i8",
    torch.int32: "i32",
}


@dataclass(frozen=True)
class Specialization:
    """A kernel with its constants, for a launch by Triton and for ahead-of-time compilation alike.

    Attributes:
        kernel: name of the operation, which is the name of its folder.
        function: the Triton function.
        arguments: run-time argument -> its type: ``*fp16`` for a pointer, ``i32`` or ``fp32`` for a scalar. A pointer
            that this form does not read is left out.
        constants: compile-time argument -> value.
        num_warps: warps of one program; num_stages: depth of the software pipeline.
        sizes: what the form is made for, as the table of tiles names it.
    """

    kernel: str
    function: Any
    arguments: Mapping[str, str]
    constants: Mapping[str, int | float | bool]
    num_warps: int
    num_stages: int
    sizes: str

    def launch(self, grid: tuple[int, ...], **arguments: Any) -> None:
        """Start `grid` programs on the current stream of the tensors' device; a grid with a 0 in it starts none.

        Args:
            arguments: a value for each of `self.arguments`; what else is given must be None.
        """
        if 0 in grid:
            return
        given = {name: arguments[name] for name in self.arguments}
        self.function[grid](**given, **self.fixed, **self.options)

    def with_constants(self, **values: int | float) -> Specialization:
        """The same form with some run-time arguments compiled in."""
        arguments = {name: kind for name, kind in self.arguments.items() if name not in values}
        return replace(self, arguments=arguments, constants={**self.constants, **values})

    @property
    def options(self) -> dict[str, int | bool]:
        """How Triton compiles it; products and sums may be fused, as Triton's own default was until 3.9."""
        return {"num_warps": self.num_warps, "num_stages": self.num_stages, "enable_fp_fusion": True}

    @property
    def fixed(self) -> dict[str, int | float | bool | None]:
        """Every argument that is compiled in: the constants, and None for each pointer that is not read."""
        names = [name for name in self.function.arg_names if name not in self.arguments]
        return {name: self.constants.get(name) for name in names}

    @property
    def signature(self) -> dict[str, str]:
        """Type of every argument in the kernel's order, ``constexpr`` for what is compiled in."""
        return {name: self.arguments.get(name, "constexpr") for name in self.function.arg_names}


def pointer(dtype: torch.dtype) -> str:
    """Triton's type of a pointer to elements of `dtype`."""
    return "*" + TRITON_TYPES[dtype]


def power_of_two(size: int, least: int = 16) -> int:
    """The smallest power of two that holds `size`, at least `least` (a matrix product takes no tile below 16)."""
    return max(least, 1 << (size - 1).bit_length())


def tiles(size: int, block: int) -> int:
    """Blocks that cover `size`."""
    return -(-size // block)
