"""Ahead-of-time compilation as a user runs it, in a process of its own: this one has Triton's interpreter."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_SLOWEST = ("linear", "prefix_attention", "candidate_attention", "capability_projection")


def run_aot(cache: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, "-m", "modelsat_engine.kernels.aot", *arguments],
        capture_output=True,
        text=True,
        env={**inherited, "TRITON_CACHE_DIR": str(cache), **environment},
        check=False,
    )


def only(*kernels: str) -> list[str]:
    return [word for kernel in kernels for word in ("--kernel", kernel)]


@pytest.mark.slow
@pytest.mark.parametrize(("target", "kernels"), [("sm_80", _SLOWEST), ("sm_90", ()), ("sm_100", _SLOWEST)])
def test_every_form_fits_its_gpu_without_spills(tmp_path: Path, target: str, kernels: tuple[str, ...]) -> None:
    done = run_aot(tmp_path, "--target", target, "--dtype", "fp16", "--json", *only(*kernels))
    assert done.returncode == 0, done.stderr
    forms = json.loads(done.stdout)["forms"]
    assert len(forms) >= 15
    assert {form["target"] for form in forms} == {target}
    for form in forms:
        assert form["problem"] is None
        assert form["spill_bytes"] == 0
        assert 0 < form["registers"] <= 255


def test_cubins_come_with_what_a_launch_without_triton_needs(tmp_path: Path) -> None:
    output = tmp_path / "cubins"
    wanted = only("mean_pool", "residual_layer_norm")
    done = run_aot(tmp_path, "--target", "sm_90", "--dtype", "fp32", *wanted, "-o", str(output))
    assert done.returncode == 0, done.stderr
    manifest = json.loads((output / "kernels.json").read_text())
    forms = {form["kernel"]: form for form in manifest["forms"]}
    assert list(forms["residual_layer_norm"]["parameters"].items()) == [
        ("branch", "*fp32"),
        ("residual", "*fp32"),
        ("weight", "*fp32"),
        ("bias", "*fp32"),
        ("rows", "i32"),
        ("epsilon", "fp32"),
        ("out", "*fp32"),
    ]
    for form in forms.values():
        cubin = (output / form["file"]).read_bytes()
        assert cubin.startswith(b"\x7fELF")
        assert form["entry"].encode() in cubin
        assert form["sha256"] == hashlib.sha256(cubin).hexdigest()
        assert form["hidden_parameters"] >= 0
        assert form["constants"]["WIDTH"] == 384


def test_wrong_use_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    unknown = run_aot(tmp_path, "--kernel", "softmax")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "no kernel is called 'softmax'; there are candidate_attention," in unknown.stderr
    interpreted = run_aot(tmp_path, TRITON_INTERPRET="1")
    assert interpreted.returncode == 2
    assert interpreted.stderr == "error: TRITON_INTERPRET is set, and the interpreter compiles nothing; unset it\n"
    blocked = tmp_path / "file"
    blocked.write_text("")
    unwritable = run_aot(
        tmp_path, "--target", "sm_90", "--dtype", "fp32", *only("mean_pool"), "-o", str(blocked / "cubins")
    )
    assert unwritable.returncode == 1
    assert unwritable.stderr.startswith("error: cannot write ")
    assert unwritable.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("shared_bytes", "spill_bytes", "problem"),
    [(227 * 1024, 0, None), (227 * 1024 + 1, 0, "shared memory"), (0, 8, "spills 8 bytes")],
)
def test_a_form_that_does_not_fit_is_a_problem(shared_bytes: int, spill_bytes: int, problem: str | None) -> None:
    from modelsat_engine.kernels.compilation import CompiledForm

    form = CompiledForm("n", "k", "sm_90", "e", {}, 2, {}, 4, shared_bytes, 40, spill_bytes, "", b"")
    assert (form.problem is None) == (problem is None)
    assert problem is None or problem in form.problem
