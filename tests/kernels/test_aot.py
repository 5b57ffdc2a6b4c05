"""Ahead-of-time compilation as a user runs it, in a process of its own: this one has Triton's interpreter."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from click.testing import CliRunner

from modelsat_engine.kernels import aot

# Those that take most registers or most shared memory; `make kernels` compiles all 234 and fails on the same grounds
_LARGEST = (
    "linear-up-fp16",
    "prefix_attention-32x128-over-8-fp16",
    "candidate_attention-28x128-over-4-memory-51-fp16",
    "capability_projection-connector-fp32",
)


COMMAND = (sys.executable, "-m", "modelsat_engine.kernels.aot")


def environment(cache: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return {**inherited, "TRITON_CACHE_DIR": str(cache)}


def run_aot(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, env=environment(cache), check=False)


def only(*kernels: str) -> list[str]:
    return [word for kernel in kernels for word in ("--kernel", kernel)]


def test_the_largest_forms_fit_every_gpu_without_spills(tmp_path: Path) -> None:
    targets = ("sm_80", "sm_90", "sm_100")
    patterns = [word for name in _LARGEST for word in ("--form", name)]
    done = run_aot(tmp_path, *(word for target in targets for word in ("--target", target)), "--json", *patterns)
    assert done.returncode == 0, done.stderr
    forms = json.loads(done.stdout)["forms"]
    assert {(form["name"], form["target"]) for form in forms} == set(product(_LARGEST, targets))
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
    assert set(manifest["grids"]) == set(forms)
    for form in forms.values():
        cubin = (output / form["file"]).read_bytes()
        assert cubin.startswith(b"\x7fELF")
        assert form["entry"].encode() in cubin
        assert form["sha256"] == hashlib.sha256(cubin).hexdigest()
        assert form["hidden_parameters"] >= 0
        assert form["constants"]["WIDTH"] == 384


def test_an_interruption_exits_with_130_and_says_nothing(tmp_path: Path) -> None:
    output = tmp_path / "cubins"
    command = [*COMMAND, "--target", "sm_90", "-o", str(output)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(tmp_path)
    ) as running:
        while not (output / "sm_90").exists() and running.poll() is None:
            pass  # it makes the folder before it compiles
        running.send_signal(signal.SIGINT)
        out, error = running.communicate()
    assert (running.returncode, out) == (130, "")
    assert "Traceback" not in error
    assert not (output / "kernels.json").exists()


def test_wrong_use_is_one_line_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(aot.main, arguments)
        assert (result.stdout, result.stderr.count("\n")) == ("", 1)
        return result.exit_code, result.stderr

    assert refused() == (2, "error: TRITON_INTERPRET is set, and the interpreter compiles nothing; unset it\n")
    monkeypatch.delenv("TRITON_INTERPRET")
    code, message = refused("--kernel", "softmax")
    assert code == 2
    assert message.startswith("error: no kernel is called 'softmax'; there are candidate_attention, ")
    code, message = refused("--form", "linear-sideways-*")
    assert code == 2
    assert message == "error: no form is left to compile; leave out --form to see the names of all\n"
    code, message = refused("--bundle", str(tmp_path / "nowhere"))
    assert code == 1
    assert message.startswith(f"error: no bundle at {tmp_path / 'nowhere'}")
    (tmp_path / "file").write_text("")
    code, message = refused("-o", str(tmp_path / "file" / "cubins"))
    assert code == 1
    assert message.startswith("error: cannot write ")


@pytest.mark.parametrize(
    ("shared_bytes", "spill_bytes", "problem"),
    [(227 * 1024, 0, None), (227 * 1024 + 1, 0, "shared memory"), (0, 8, "spills 8 bytes")],
)
def test_a_form_that_does_not_fit_is_a_problem(shared_bytes: int, spill_bytes: int, problem: str | None) -> None:
    from modelsat_engine.kernels.compilation import CompiledForm

    form = CompiledForm("n", "k", "sm_90", "e", {}, 2, {}, 4, shared_bytes, 40, spill_bytes, "", b"")
    assert (form.problem is None) == (problem is None)
    assert problem is None or problem in form.problem
