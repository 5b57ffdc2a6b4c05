"""PTX that a plugin hands over: its parameters are those that TensorRT passes, and it still assembles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelsat_engine.errors import KernelError

# Triton is imported by the tests, not by this file: whoever collects tests/kernels after it wants the interpreter
ENTRY = """//
.visible .entry kernel(
	.param .u64 .ptr .global .align 1 kernel_param_0,
	.param .u32 kernel_param_1,
	.param .u64 .ptr .global .align 1 kernel_param_2,
	.param .u64 .ptr .global .align 1 kernel_param_3
)
.reqntid 128
{
	ld.param.b64 %rd1, [kernel_param_0];
	ld.param.b32 %r1, [kernel_param_1];
	ret;
}
"""

# In a process of its own: this one may have Triton's interpreter
_ASSEMBLE = """
import json, subprocess, sys, tempfile
import torch
from triton import knobs
from modelsat_engine.export.tensorrt.plugins.candidate_attention import AttentionSizes, attention_form
from modelsat_engine.export.tensorrt.plugins.ptx import compile_plugin
from modelsat_engine.export.tensorrt.plugins.scoring_head import HeadSizes, head_form
capability = int(sys.argv[1])
forms = {
    "attention": attention_form(AttentionSizes("HALF", 384, 12, True, 0), capability),
    "memory": attention_form(AttentionSizes("BF16", 384, 12, False, 51), capability),
    "head": head_form(HeadSizes("FLOAT", 384, 1, 1e-12, 1.2, -0.1, 56), capability),
}
found = {}
for name, form in forms.items():
    kernel = compile_plugin(form, capability)
    with tempfile.NamedTemporaryFile(suffix=".ptx") as file, tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        file.write(kernel.ptx.encode())
        file.flush()
        target = next(line.split()[1] for line in kernel.ptx.splitlines() if line.startswith(".target")).strip(",")
        newer = getattr(knobs.nvidia, "ptxas_blackwell", knobs.nvidia.ptxas)
        assembler = (newer if capability >= 100 else knobs.nvidia.ptxas).path
        command = [assembler, f"--gpu-name={target}", file.name, "-o", cubin.name]
        done = subprocess.run(command, capture_output=True, text=True)
    version = kernel.ptx.split(".version", 1)[1].split()[0]
    declared = kernel.ptx.count(".param .")
    found[name] = [done.returncode, done.stderr, kernel.shared_bytes, len(form.arguments), declared, version]
print(json.dumps(found))
"""


def test_parameters_that_triton_appends_are_taken_off() -> None:
    from modelsat_engine.export.tensorrt.plugins.ptx import without_hidden_parameters

    stripped = without_hidden_parameters(ENTRY, 2)
    assert "kernel_param_1" in stripped
    assert "kernel_param_2" not in stripped
    assert stripped.count(".param") == 2 + 2  # declared and read
    assert stripped.split(")\n", 1)[1] == ENTRY.split(")\n", 1)[1]
    assert without_hidden_parameters(ENTRY, 4).count("kernel_param_") == ENTRY.count("kernel_param_")


def test_a_parameter_that_is_read_stays_or_the_kernel_is_refused() -> None:
    from modelsat_engine.export.tensorrt.plugins.ptx import without_hidden_parameters

    with pytest.raises(KernelError, match="reads kernel_param_1, for which TensorRT has no value"):
        without_hidden_parameters(ENTRY, 1)


def test_fractions_at_run_time_are_refused() -> None:
    import torch

    from modelsat_engine.export.tensorrt.plugins.ptx import compile_plugin
    from modelsat_engine.kernels.scoring_head.launch import ScoringHeadShape

    shape = ScoringHeadShape(96, 1, 0, 0, torch.float32, False, "layer", False, 0)
    with pytest.raises(KernelError, match="passes epsilon, temperature, calibration_bias, value at run time"):
        compile_plugin(shape.specialize("sm_90"), 90)


def test_numbers_of_the_calibration_are_compiled_in() -> None:
    from modelsat_engine.export.tensorrt.plugins.scoring_head import HeadSizes, head_form

    form = head_form(HeadSizes("FLOAT", 96, 2, 1e-12, 1.25, -0.5, 13), 90)
    assert (form.fixed["temperature"], form.fixed["calibration_bias"], form.fixed["EVIDENCE"]) == (1.25, -0.5, 13)
    assert [kind for kind in form.arguments.values() if not kind.startswith("*")] == ["i32"]


@pytest.mark.skipif(sys.platform != "linux", reason="there is no Triton for this system")
@pytest.mark.parametrize("capability", [80, 90, 100])
def test_the_stripped_kernels_assemble(capability: int, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", _ASSEMBLE, str(capability)],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name, (code, said, shared, arguments, declared, version) in json.loads(done.stdout).items():
        assert (code, said) == (0, ""), name
        assert declared == arguments, name
        assert shared <= 48 * 1024
        assert version == {80: "8.0", 90: "8.0", 100: "8.6"}[capability]
