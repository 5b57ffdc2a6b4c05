"""Compiles a form of a kernel for a GPU that need not be here, and says what it takes of one."""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from typing import Any

from modelsat_engine.errors import KernelError
from modelsat_engine.kernels.inventory import Form
from modelsat_engine.kernels.specialization import Specialization

#: Shared memory that one block may have, in bytes (CUDA C++ Programming Guide, compute capabilities).
SHARED_LIMIT_BYTES = {"sm_80": 163 * 1024, "sm_90": 227 * 1024, "sm_100": 227 * 1024}
_ALIGNMENT_BYTES = 16


@dataclass(frozen=True)
class CompiledForm:
    """One cubin and what is needed to launch it.

    Attributes:
        name: the form's name; kernel: the operation's.
        target: such as ``sm_90``.
        entry: name of the function in the cubin.
        parameters: run-time argument -> type, in the order in which a launch passes them; pointers are aligned to 16
            bytes.
        hidden_parameters: pointers that Triton appends, for which a launch passes null.
        constants: what was compiled in.
        num_warps: the block has 32 times as many threads.
        shared_bytes: dynamic shared memory of a launch.
        registers: of one thread. spill_bytes: of one thread's registers that did not fit and went to memory.
        sha256: of the cubin; cubin: its bytes.
    """

    name: str
    kernel: str
    target: str
    entry: str
    parameters: dict[str, str]
    hidden_parameters: int
    constants: dict[str, int | float | bool | None]
    num_warps: int
    shared_bytes: int
    registers: int
    spill_bytes: int
    sha256: str
    cubin: bytes

    @property
    def file_name(self) -> str:
        """Where a folder of cubins keeps it."""
        return f"{self.target}/{self.name}.cubin"

    @property
    def problem(self) -> str | None:
        """Why this form should not be used on its target, or None."""
        limit = SHARED_LIMIT_BYTES[self.target]
        if self.shared_bytes > limit:
            return f"needs {self.shared_bytes} bytes of shared memory, {self.target} has {limit}; make its tile smaller"
        if self.spill_bytes:
            return f"spills {self.spill_bytes} bytes of registers a thread; make its tile smaller"
        return None

    def as_json(self) -> dict[str, Any]:
        """Everything but the bytes."""
        facts = asdict(self)
        del facts["cubin"]
        return {**facts, "file": self.file_name, "problem": self.problem}


def compile_form(form: Form, target: str) -> CompiledForm:
    """Compile one form; takes about a second.

    Raises:
        KernelError: Triton or its assembler refused, or a launch would need more than arguments; the message names the
            form.
    """
    chosen = form.shape.specialize(target)
    return _describe(form, target, chosen, compile_specialization(chosen, int(target.removeprefix("sm_")), form.name))


def compile_specialization(chosen: Specialization, capability: int, name: str, ptx_version: int | None = None) -> Any:
    """What Triton makes of a kernel with its constants: `asm` with PTX and cubin, `metadata`.

    Args:
        capability: of the GPU, ten times the major number plus the minor one.
        name: for messages.
        ptx_version: of the PTX, 86 for 8.6, where a driver may have to read it; None for the newest that Triton knows.

    Raises:
        KernelError: Triton or its assembler refused.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = chosen.function.arg_names
    aligned = {
        (names.index(argument),): [["tt.divisibility", _ALIGNMENT_BYTES]]
        for argument, kind in chosen.arguments.items()
        if kind.startswith("*")
    }
    source = ASTSource(chosen.function, chosen.signature, chosen.fixed, aligned)
    try:
        options = {**chosen.options, **({} if ptx_version is None else {"ptx_version": ptx_version})}
        return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    except Exception as error:  # the compiler raises what its passes raise: no base class of its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise KernelError(f"{name} does not compile for sm_{capability}: {reason}") from error


def _describe(form: Form, target: str, chosen: Specialization, compiled: Any) -> CompiledForm:
    cubin = compiled.asm["cubin"]
    if getattr(compiled.metadata, "global_scratch_size", 0):
        raise KernelError(f"{form.name} for {target} needs scratch memory, which a launch without Triton has not")
    registers, spill_bytes = resource_usage(cubin)
    passed = {name: kind for name, kind in chosen.signature.items() if kind != "constexpr"}
    return CompiledForm(
        name=form.name,
        kernel=chosen.kernel,
        target=target,
        entry=compiled.metadata.name,
        parameters=passed,
        hidden_parameters=entry_parameters(compiled.asm["ptx"]) - len(passed),
        constants=chosen.fixed,
        num_warps=chosen.num_warps,
        shared_bytes=compiled.metadata.shared,
        registers=registers,
        spill_bytes=spill_bytes,
        sha256=hashlib.sha256(cubin).hexdigest(),
        cubin=cubin,
    )


def resource_usage(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes of stack of one thread, as the cuobjdump that comes with Triton reads them off a cubin.

    A kernel made by Triton has a stack for one reason only: registers that were spilled.

    Raises:
        KernelError: the tool is missing or says something else than expected.
    """
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        try:
            command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
            text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
            raise KernelError(f"cannot read a cubin with Triton's cuobjdump ({error}); reinstall triton") from error
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", text)
    if found is None:
        raise KernelError("this Triton's cuobjdump reports no resource usage; use Triton 3.6 or later")
    return int(found[1]), int(found[2]) + int(found[3])


def entry_parameters(ptx: str) -> int:
    """Parameters of the one entry function of a PTX text."""
    head = ptx.split(".entry", 1)[1].split("{", 1)[0]
    return len(re.findall(r"\.param", head))
