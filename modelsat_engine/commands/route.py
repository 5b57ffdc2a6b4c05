"""`modelsat route`: who should answer this instruction?"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelsat_engine.commands.console import bar, console, mark, one_line, price, print_json, unicode_output
from modelsat_engine.commands.options import engine_options, json_option
from modelsat_engine.commands.policy_options import describe, make_policy, policy_options
from modelsat_engine.errors import InstructionError

if TYPE_CHECKING:
    from modelsat_engine.aptitude import CapabilityProfile
    from modelsat_engine.runtime.engine import RoutingDecision
    from modelsat_engine.runtime.policies import Policy

# Up to a fifth of the test, choices by a profile are clearly worse than by a whole one: docs/onboarding.md
THIN_SHARE = 0.2
DEFAULT_INTERVAL = 0.9
# Sixteen rows more a candidate: with a thousand candidates the command would take seconds.
INTERVALS_UP_TO = 100


@click.command("route", short_help="Say who should answer one instruction, and how likely each is to be right.")
@click.argument("instruction", required=False)
@click.option("--file", type=click.Path(path_type=Path), metavar="FILE", help="Read the instruction from a text file.")
@click.option(
    "--messages",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help='Read OpenAI chat messages from a JSON file: a list, or {"messages": [...]}.',
)
@policy_options
@click.option(
    "--interval",
    type=click.FloatRange(0, 1, max_open=True),
    metavar="SHARE",
    help="How sure the ranges of P(Yes) are; 0 leaves them out.  [default: 0.9, in zoos of up to 100 candidates]",
)
@engine_options
@json_option
def command(
    instruction: str | None,
    file: Path | None,
    messages: Path | None,
    policy_name: str,
    threshold: float | None,
    usd_value: float | None,
    tokens_per_request: float | None,
    interval: float | None,
    bundle: Path | None,
    zoo: Path | None,
    candidates: tuple[str, ...],
    executor: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Predict for every candidate how likely it is to answer INSTRUCTION correctly, and choose one.

    INSTRUCTION is the prompt as the candidates would get it; '-' reads it from stdin.

    The range beside P(Yes) is where P would lie if the candidate's accuracy on every task of the aptitude test were
    known exactly: wide for a candidate of few answers, and no word on the router's own errors.

    \b
    Examples:
      modelsat route "Prove that the square root of 2 is irrational."
      modelsat route "Who wrote Faust?" --policy cheapest-above --threshold 0.7
      git diff | modelsat route - --json
    """
    policy = make_policy(policy_name, threshold, usd_value, tokens_per_request)
    text = _read_instruction(instruction, file, messages)

    from modelsat_engine.commands.engine import engine_over
    from modelsat_engine.commands.zoo import read_zoo
    from modelsat_engine.export.bundle import Bundle

    opened = Bundle.load(bundle)
    found = read_zoo(opened, zoo)
    with engine_over(opened, found, candidates, executor, threads) as engine:
        if interval is None:
            interval = DEFAULT_INTERVAL if len(engine.candidates) <= INTERVALS_UP_TO else 0
        if interval:
            engine.candidates.wide(engine.candidates.bound)  # once a zoo, so it is no part of the time shown
        decision = engine.route(text, policy=policy, interval=interval or None)
        profiles = engine.candidates.profiles
    items = len(opened.aptitude_test.item_ids)
    if as_json:
        answers = {profile.name: sum(profile.total.values()) for profile in profiles}
        print_json({**as_record(decision), "aptitude_items": items, "aptitude_answers": answers, "zoo": found.label})
    else:
        _print_table(decision, policy, profiles, items)


def as_record(decision: RoutingDecision) -> dict[str, Any]:
    """A decision as programs read it; probabilities with the seven decimals that float32 knows."""
    return {
        **decision.to_json(),
        "probability": round(decision.probability, 7),
        "probabilities": {name: round(value, 7) for name, value in decision.probabilities.items()},
        "intervals": decision.intervals
        and {name: [round(end, 7) for end in ends] for name, ends in decision.intervals.items()},
    }


def _read_instruction(instruction: str | None, file: Path | None, messages: Path | None) -> str | list[Any]:
    """The one instruction that the command line names."""
    if sum(source is not None for source in (instruction, file, messages)) != 1:
        raise click.UsageError("give one INSTRUCTION (in quotes), '-' for stdin, --file or --messages")
    if messages is not None:
        value: Any = _json(_text(_bytes(messages), str(messages)), str(messages))
        if isinstance(value, dict) and "messages" in value:
            value = value["messages"]
        if not isinstance(value, list):
            raise InstructionError(f"{messages} holds no chat messages; need a JSON list of {{role, content}}")
        return value
    if file is not None:
        return _not_empty(_text(_bytes(file), str(file)), str(file))
    if instruction == "-":
        return _not_empty(_text(sys.stdin.buffer.read(), "stdin"), "stdin")
    return _not_empty(instruction or "", "INSTRUCTION")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InstructionError(f"cannot read {path}: {error.strerror}") from error


def _text(content: bytes, source: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InstructionError(
            f"{source} is not valid UTF-8 (byte 0x{content[error.start]:02x} in line {line}); convert it first"
        ) from error


def _json(text: str, source: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InstructionError(f"{source} is not JSON: {error}") from error


def _not_empty(text: str, source: str) -> str:
    if not text.strip():
        raise InstructionError(f"{source} is empty; give the prompt that the candidates would get")
    return text


def _print_table(decision: RoutingDecision, policy: Policy, profiles: Sequence[CapabilityProfile], items: int) -> None:
    from rich.table import Table
    from rich.text import Text

    by_name = {profile.name: profile for profile in profiles}
    words = {name: _thinness(profile, items) for name, profile in by_name.items()}
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column("candidate", no_wrap=True)
    table.add_column("P(Yes)", justify="right")
    if decision.interval is not None:
        table.add_column(f"{100 * decision.interval:.4g} % range", justify="right", no_wrap=True)
    table.add_column("")
    table.add_column("$/M tokens", justify="right")
    if any(words.values()):
        table.add_column("profile", no_wrap=True)
    for name, probability in sorted(decision.probabilities.items(), key=lambda item: (-item[1], item[0])):
        chosen = name == decision.candidate
        cells: list[str | Text] = [mark() if chosen else "", Text(one_line(name)), f"{probability:.3f}"]
        if decision.intervals is not None:
            cells.append("{:.2f} to {:.2f}".format(*decision.intervals[name]))
        cells += [
            Text(bar(probability, 20), style="green" if chosen else "cyan"),
            price(by_name[name].usd_per_million_tokens),
        ]
        if any(words.values()):
            cells.append(words[name])
        table.add_row(*cells, style="bold" if chosen else "")
    out = console()
    out.print(table)
    out.print(Text("\n" + _footer(decision, policy), style="dim"))


def _thinness(profile: CapabilityProfile, items: int) -> str:
    """What a person should know of a profile that is not complete; "" of one that is."""
    answers = sum(profile.total.values())
    if answers >= items:
        return ""
    word = "thin: " if answers < items * THIN_SHARE else ""
    return f"{word}{answers:,} of {items:,} answers"


def _footer(decision: RoutingDecision, policy: Policy) -> str:
    """One line: how the choice was made, and what of the instruction was left out."""
    threshold = getattr(policy, "threshold", None)
    parts = [
        f"policy {describe(policy)}",
        f"{decision.timing_us['total'] / 1000:.1f} ms on {decision.executor}",
        decision.bundle,
    ]
    if threshold is not None and decision.probability < threshold:
        parts.insert(1, "nobody reaches it, so the likeliest is taken")
    if decision.truncated:
        parts.append(f"cut to fit: {decision.instruction_tokens:,} tokens or more were too many")
    else:
        parts.append(f"{decision.instruction_tokens:,} tokens")
    if decision.ignored_parts:
        parts.append(f"not read: {', '.join(map(one_line, decision.ignored_parts))}")
    return " · ".join(parts) if unicode_output() else ", ".join(parts)
