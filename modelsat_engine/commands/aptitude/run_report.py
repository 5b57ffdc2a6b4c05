"""What `modelsat aptitude run` says: while it runs, at its end, and in place of it (--dry-run)."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelsat_engine.commands.console import one_line, price, print_json, warn

if TYPE_CHECKING:
    from modelsat_engine.aptitude import AptitudeTest
    from modelsat_engine.aptitude.taking.log import AnswerLog
    from modelsat_engine.aptitude.taking.protocol import Protocol
    from modelsat_engine.aptitude.taking.selection import Selection
    from modelsat_engine.aptitude.taking.session import Outcome, Session

# Shares from which a person should look at the log before they trust the profile
MANY_UNPARSED, MANY_CUT_OFF = 0.1, 0.05


def progress_note(session: Session, items: int) -> str:
    """The right of the progress bar: answers, pace, share of right ones, tokens, cost."""
    tally = session.tally
    parts = [f"{len(tally.graded):,}/{items:,}", f"{session.answers_per_second:.1f}/s"]
    if tally.accuracy is not None:
        parts.append(f"{tally.accuracy:.1%} right")
    if tally.tokens is not None:
        parts.append(f"{tally.tokens:,} tokens")
    if tally.usd is not None:
        parts.append(price(tally.usd))
    return ", ".join(parts)


def summarise(
    session: Session,
    outcome: Outcome,
    selection: Selection,
    test: AptitudeTest,
    name: str,
    model: str,
    url: str,
    output: Path,
    log_path: Path,
    usd: float | None,
) -> dict[str, Any]:
    """The object that --json prints."""
    from modelsat_engine.aptitude.intervals import wilson

    tally = session.tally
    graded = len(tally.graded)
    return {
        "name": name,
        "model": model,
        "endpoint": url,
        "profile": str(output),
        "log": str(log_path),
        "test_id": test.id,
        "complete": outcome.certain or graded == len(selection.items),
        "certain": outcome.certain,
        "asked_items": len(selection.items),
        "graded_items": graded,
        "test_items": len(test.item_ids),
        "tasks": len({item.task for item in selection.items if item.id in tally.graded}),
        "test_tasks": len(test.tasks),
        "correct": tally.correct,
        "accuracy": _rounded(tally.accuracy),
        "accuracy_interval": [round(bound, 4) for bound in wilson(tally.correct, graded)],
        "answers": tally.answers,
        "resumed_answers": session.resumed,
        "unparsed": tally.unparsed,
        "unparsed_share": _rounded(tally.unparsed_share),
        "cut_off": tally.cut_off,
        "failed": outcome.failed,
        "prompt_tokens": None if tally.uncounted else tally.prompt_tokens,
        "completion_tokens": None if tally.uncounted else tally.completion_tokens,
        "usd": _rounded(tally.usd, 6),
        "usd_per_million_tokens": usd,
        "seconds": round(outcome.seconds, 3),
        "answers_per_second": round(session.answers_per_second, 2),
        "stopped": outcome.stopped,
        "interrupted": outcome.interrupted,
    }


def tell(summary: dict[str, Any]) -> None:
    """The summary for people."""
    resumed = f", {summary['resumed_answers']:,} more were in the log" if summary["resumed_answers"] else ""
    click.echo(
        f"{summary['answers'] - summary['resumed_answers']:,} answers in {summary['seconds']:.1f} s "
        f"({summary['answers_per_second']:.1f}/s){resumed}"
    )
    low, high = summary["accuracy_interval"]
    click.echo(
        f"{summary['correct']:,} of {summary['graded_items']:,} questions right: {summary['accuracy']:.1%}, "
        f"with 95 % confidence {low:.1%} to {high:.1%}"
    )
    click.echo(
        f"{summary['unparsed']:,} answers could not be read ({summary['unparsed_share']:.1%}) and count as wrong"
    )
    if summary["prompt_tokens"] is None:
        click.echo("The endpoint does not report tokens, so the cost is not known")
    else:
        cost = "" if summary["usd"] is None else f", {price(summary['usd'])}"
        click.echo(f"{summary['prompt_tokens']:,} tokens asked, {summary['completion_tokens']:,} answered{cost}")
    if summary["certain"]:
        click.echo(f"Certain enough after {summary['graded_items']:,} of {summary['asked_items']:,} questions")
    profile = one_line(summary["profile"])
    click.echo(f"{profile}: {summary['tasks']} of {summary['test_tasks']} tasks. Every answer: {summary['log']}")
    click.echo(f"Add it to a zoo: modelsat candidates add {shlex.quote(profile)}")


def warn_about(session: Session, outcome: Outcome, summary: dict[str, Any]) -> None:
    """What a person should know before they trust the profile, on stderr."""
    tally = session.tally
    if not summary["complete"]:
        warn(
            f"the profile is partial: {summary['graded_items']:,} of {summary['asked_items']:,} questions are graded; "
            "it can be used, with less certainty"
        )
    if outcome.failed and outcome.stopped is None and not outcome.interrupted:
        item, reason = next(iter(outcome.failed.items()))
        warn(
            f"{len(outcome.failed):,} questions brought no answer ({item}: {reason}); the same command asks them again"
        )
    if tally.cut_off > MANY_CUT_OFF * tally.answers:
        warn(f"{tally.cut_off:,} of {tally.answers:,} answers were cut off; raise --max-tokens (in a log of its own)")
    if tally.unparsed > MANY_UNPARSED * tally.answers:
        warn(
            f'{tally.unparsed:,} of {tally.answers:,} answers could not be read; look for "parsed": null in '
            f"{summary['log']}, and try --style, --system or --max-tokens"
        )


def report_dry_run(
    selection: Selection, protocol: Protocol, log: AnswerLog, restart: bool, usd: float | None, as_json: bool
) -> None:
    """What asking the rest would take; asks nothing and starts no log."""
    from modelsat_engine.aptitude.taking.estimate import estimate
    from modelsat_engine.aptitude.taking.session import tally_of

    items = list(selection.items)
    if log.path.exists() and not restart:
        with log:
            graded = tally_of(items, protocol, log).graded
        items = [item for item in items if item.id not in graded]
    guess = estimate(items, protocol)
    cost = guess.usd(usd)
    if as_json:
        print_json(
            {
                "dry_run": True,
                "items": guess.items,
                "answered_items": len(selection.items) - guess.items,
                "requests": [guess.least_requests, guess.most_requests],
                "prompt_tokens_about": guess.prompt_tokens,
                "completion_tokens": [guess.least_answer_tokens, guess.most_answer_tokens],
                "usd": None if cost is None else [round(cost[0], 6), round(cost[1], 6)],
                "example_prompt": guess.example,
            }
        )
        return
    if answered := len(selection.items) - guess.items:
        click.echo(f"{answered:,} questions are answered in {log.path}")
    requests = f"{guess.most_requests:,}"
    if guess.least_requests != guess.most_requests:
        requests = f"{guess.least_requests:,} to {requests}"
    click.echo(f"{guess.items:,} questions in {requests} requests, beside retries")
    click.echo(
        f"about {guess.prompt_tokens:,} tokens asked at most, {guess.least_answer_tokens:,} to "
        f"{guess.most_answer_tokens:,} answered (--max-tokens {protocol.max_tokens} each)"
    )
    click.echo(
        "cost not known without --price" if cost is None else f"cost {price(cost[0])} to {price(cost[1])} at that price"
    )
    if guess.example is not None:
        click.echo("\nThe first prompt:\n")
        if isinstance(guess.example, str):
            click.echo(guess.example)
        else:
            click.echo("\n\n".join(f"[{message['role']}]\n{message['content']}" for message in guess.example))


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(value, digits)
