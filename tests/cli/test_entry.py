"""The entry: exit codes, one-line errors, and what is loaded when."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from modelsat_engine import __version__
from modelsat_engine.cli import COMMANDS, cli, report
from tests.cli.conftest import Run


def one_error_line(stderr: str) -> str:
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def test_alone_it_prints_the_help(run: Run) -> None:
    result = run()
    assert result.exit_code == 0
    assert all(name in result.stdout for name in COMMANDS)


def test_the_version_is_the_package_version(run: Run) -> None:
    assert run("--version").stdout == f"modelsat-engine {__version__}\n"


def all_commands() -> list[tuple[str, ...]]:
    context = click.Context(cli)
    paths: list[tuple[str, ...]] = []
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        inner = list(command.commands) if isinstance(command, click.Group) else []
        paths += [(name,), *((name, sub) for sub in inner)]
    return paths


@pytest.mark.parametrize("path", all_commands(), ids=" ".join)
def test_every_help_has_two_examples_that_start_with_the_command(run: Run, path: tuple[str, ...]) -> None:
    result = run(*path, "--help")
    assert result.exit_code == 0
    examples = result.stdout.split("Examples:")[1].split("Options:")[0]
    assert examples.count("modelsat ") >= 2
    assert "modelsat " + path[0] in examples


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["rout"], "see 'modelsat --help'"),
        (["--nonsense"], "see 'modelsat --help'"),
        (["route"], "see 'modelsat route --help'"),
        (["route", "one", "two"], "see 'modelsat route --help'"),
        (["route", "a", "--file", "b"], "see 'modelsat route --help'"),
        (["route", "a", "--policy", "best"], "see 'modelsat route --help'"),
        (["route", "a", "--threshold", "0.5"], "--threshold is for --policy cheapest-above"),
        (["route", "a", "--policy", "cheapest-above"], "needs --threshold"),
        (["route", "a", "--policy", "maximum-utility"], "needs --usd-value"),
        (["route", "a", "--threads", "0"], "see 'modelsat route --help'"),
        (["score", "in.txt"], "see 'modelsat score --help'"),
        (["candidates", "add"], "see 'modelsat candidates add --help'"),
        (["candidates", "nothing"], "see 'modelsat candidates --help'"),
    ],
)
def test_bad_usage_is_one_line_with_a_hint_and_exit_2(run: Run, arguments: list[str], hint: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert hint in one_error_line(result.stderr)


def test_an_unforeseen_exception_is_one_line_that_names_its_type(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: object, **__: object) -> None:
        raise ZeroDivisionError("first\nsecond")

    monkeypatch.setattr("modelsat_engine.commands.engine.engine_over", break_down)
    monkeypatch.delenv("MODELSAT_DEBUG", raising=False)
    result = run("route", "hello")
    assert result.exit_code == 1
    line = one_error_line(result.stderr)
    assert "ZeroDivisionError: first second" in line
    assert "MODELSAT_DEBUG=1" in line

    monkeypatch.setenv("MODELSAT_DEBUG", "1")
    assert isinstance(run("route", "hello").exception, ZeroDivisionError)


def test_interruption_exits_130_without_a_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("modelsat_engine.commands.engine.engine_over", interrupt)
    result = run("route", "hello")
    assert result.exit_code == 130
    assert "Traceback" not in result.stderr


def test_control_characters_of_a_name_do_not_reach_the_terminal(run: Run) -> None:
    result = run("candidates", "show", "\x1b[2Jevil\nname")
    assert result.exit_code == 1
    assert "\x1b" not in one_error_line(result.stderr)


def test_memory_errors_say_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(MemoryError()) == 1
    assert "smaller batch" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["route", "--help"], ["score", "--help"]])
def test_help_loads_no_heavy_library(arguments: list[str]) -> None:
    heavy = {"numpy", "onnxruntime", "tokenizers", "pyarrow", "rich", "torch", "asyncio"}
    code = (
        "import sys; from modelsat_engine.cli import cli\n"
        f"try: cli.main({arguments!r})\n"
        "except SystemExit: pass\n"
        f"print('LOADED', sorted({heavy!r} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "LOADED []"
