"""A kernel's PTX as a plugin hands it over: launched with inputs, integers and outputs, and with nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from modelsat_engine.errors import KernelError
from modelsat_engine.kernels.compilation import compile_specialization
from modelsat_engine.kernels.specialization import Specialization

#: Dynamic shared memory of a launch that does not ask the driver for more.
SHARED_LIMIT_BYTES = 48 * 1024
# What a driver compiles depends on its age: the oldest version that knows the GPU, CUDA 12.0 for 8.0
_PTX_VERSIONS = ((120, 87), (103, 88), (100, 86), (0, 80))
#: TensorRT's name of a dtype -> torch's.
DTYPES = {"FLOAT": torch.float32, "HALF": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class PluginKernel:
    """One compiled kernel.

    Attributes:
        entry: name of its function. ptx: its text.
        threads: of a block. shared_bytes: dynamic shared memory of a block.
    """

    entry: str
    ptx: str
    threads: int
    shared_bytes: int


def compile_plugin(chosen: Specialization, capability: int) -> PluginKernel:
    """Compile a form whose run-time arguments are pointers and integers.

    Args:
        capability: of the GPU, ten times the major number plus the minor one.

    Raises:
        KernelError: it does not compile, or needs what a plugin's launch does not give: numbers with a fraction,
            scratch memory, or more shared memory than every launch has.
    """
    name = f"the plugin {chosen.kernel}"
    fractions = [argument for argument, kind in chosen.arguments.items() if kind == "fp32"]
    if fractions:
        raise KernelError(
            f"{name} passes {', '.join(fractions)} at run time; TensorRT passes integers, compile them in"
        )
    version = next(version for first, version in _PTX_VERSIONS if capability >= first)
    compiled = compile_specialization(chosen, capability, name, version)
    metadata = compiled.metadata
    if metadata.global_scratch_size or metadata.profile_scratch_size:
        raise KernelError(f"{name} needs scratch memory, which TensorRT does not give it")
    if metadata.shared > SHARED_LIMIT_BYTES:
        raise KernelError(f"{name} needs {metadata.shared} bytes of shared memory, a launch has {SHARED_LIMIT_BYTES}")
    ptx = without_hidden_parameters(compiled.asm["ptx"], len(chosen.arguments))
    return PluginKernel(metadata.name, ptx, 32 * metadata.num_warps, metadata.shared)


def without_hidden_parameters(ptx: str, passed: int) -> str:
    """Take the pointers that Triton appends, and never reads here, off the entry's parameters.

    Triton's own launcher passes null for them. TensorRT passes what the plugin declares, and a launch that passes less
    than an entry asks for reads beyond the list.

    Args:
        passed: how many parameters stay.

    Raises:
        KernelError: the entry reads one that would go.
    """
    head, entry, rest = ptx.partition(".entry")
    start = rest.index("(") + 1
    end = rest.index(")", start)
    parameters = [part.strip() for part in rest[start:end].split(",")]
    body = rest[end:]
    for parameter in parameters[passed:]:
        name = parameter.split()[-1]
        if re.search(rf"\b{re.escape(name)}\b", body):
            raise KernelError(f"the kernel reads {name}, for which TensorRT has no value")
    kept = ",\n".join(f"\t{parameter}" for parameter in parameters[:passed])
    return f"{head}{entry}{rest[:start]}\n{kept}\n{body}"
