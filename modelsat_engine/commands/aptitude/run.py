"""`modelsat aptitude run`: let a model behind an OpenAI-compatible endpoint take the aptitude test."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelsat_engine.commands.aptitude.run_report import progress_note, report_dry_run, summarise, tell, warn_about
from modelsat_engine.commands.console import print_json, warn
from modelsat_engine.commands.options import bundle_option, json_option
from modelsat_engine.errors import DataError, EndpointError, OptionError

if TYPE_CHECKING:
    from modelsat_engine.aptitude import AptitudeTest
    from modelsat_engine.aptitude.taking.log import AnswerLog
    from modelsat_engine.aptitude.taking.protocol import Protocol
    from modelsat_engine.aptitude.taking.selection import Selection
    from modelsat_engine.aptitude.taking.session import Outcome, Session

OWN_FIELDS = frozenset({"model", "messages", "prompt", "stream", "n"})


@click.command("run", short_help="Let a model behind an endpoint take the test.")
@click.option("--endpoint", required=True, metavar="URL", help="Base address, such as http://127.0.0.1:8000/v1.")
@click.option("--model", required=True, metavar="NAME", help="The name the endpoint knows the model by.")
@click.option("--name", metavar="NAME", help="The candidate's name in the profile.  [default: --model]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The profile to write.  [default: NAME.json]")
@click.option("--overwrite", is_flag=True, help="Replace a profile that another run or tool wrote.")
@click.option("--notes", default="", metavar="TEXT", help="Expert notes for the profile: languages, context length...")
@click.option("--price", "usd", type=click.FloatRange(min=0), metavar="USD", help="Price per million tokens.")
@click.option(
    "--questions",
    envvar="MODELSAT_QUESTIONS",
    show_envvar=True,
    metavar="FILE",
    help="Texts of the test's questions: jsonl, csv or parquet.  [default: fetch the public data set of the test]",
)
@click.option(
    "--answer-as",
    type=click.Choice(["auto", "letter", "index", "text"]),
    default="auto",
    show_default=True,
    help="How --questions writes right answers.",
)
@click.option(
    "--test", "test_file", type=click.Path(path_type=Path), metavar="FILE", help="A test of your own, an aptitude.json."
)
@bundle_option
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only N questions, spread over the tasks.")
@click.option("--adaptive", is_flag=True, help="Stop when the profile is certain enough.")
@click.option(
    "--target-error",
    type=click.FloatRange(0, 0.5, min_open=True, max_open=True),
    metavar="SHARE",
    help="How certain --adaptive wants a task's accuracy to be; smaller asks more.",
)
@click.option("--api", type=click.Choice(["chat", "completions"]), default="chat", show_default=True)
@click.option(
    "--style",
    type=click.Choice(["direct", "reason"]),
    default="direct",
    show_default=True,
    help="Ask for the answer alone, or for thoughts first.",
)
@click.option("--system", metavar="TEXT", help="A system prompt (chat).")
@click.option("--circle", is_flag=True, help="Circle test: an item counts when right in all rotations of its options.")
@click.option("--rotations", type=click.IntRange(min=2), metavar="N", help="At most N rotations of --circle.")
@click.option("--temperature", type=float, default=0.0, show_default=True, metavar="T")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Chooses questions; sent along.")
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="Most tokens of an answer, thoughts included.  [default: chat 2048, completions 16, with reason 4096, 2048]",
)
@click.option("--stop", multiple=True, metavar="TEXT", help="Ends an answer; may be repeated.")
@click.option("--omit", multiple=True, metavar="FIELD", help="Do not send a field that the endpoint refuses.")
@click.option("--extra", metavar="JSON", help='More fields to send, such as \'{"reasoning_effort": "low"}\'.')
@click.option("--stream", is_flag=True, help="Let answers come in pieces, for gateways that cut silent lines.")
@click.option("--concurrency", type=click.IntRange(1, 1024), default=8, show_default=True, metavar="N")
@click.option("--rpm", type=click.FloatRange(min=0, min_open=True), metavar="N", help="Most requests a minute.")
@click.option("--retries", type=click.IntRange(min=0), default=6, show_default=True, metavar="N")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest one request may take.",
)
@click.option(
    "--max-wait",
    "max_wait_s",
    type=click.FloatRange(min=0),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest wait an endpoint may ask for.",
)
@click.option(
    "--api-key-env",
    default="OPENAI_API_KEY",
    show_default=True,
    metavar="NAME",
    help="The environment variable with the key; unset for servers without one.",
)
@click.option("--log", "log_path", type=click.Path(path_type=Path), help="Every answer.  [default: NAME.answers.jsonl]")
@click.option("--restart", is_flag=True, help="Forget the answers of an interrupted run.")
@click.option("--dry-run", is_flag=True, help="Ask nothing: say how many requests, about how many tokens, what cost.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    endpoint: str,
    model: str,
    name: str | None,
    output: Path | None,
    overwrite: bool,
    notes: str,
    usd: float | None,
    questions: str | None,
    answer_as: str,
    test_file: Path | None,
    bundle: Path | None,
    limit: int | None,
    adaptive: bool,
    target_error: float | None,
    api: str,
    style: str,
    system: str | None,
    circle: bool,
    rotations: int | None,
    temperature: float,
    seed: int,
    max_tokens: int | None,
    stop: tuple[str, ...],
    omit: tuple[str, ...],
    extra: str | None,
    stream: bool,
    concurrency: int,
    rpm: float | None,
    retries: int,
    timeout_s: float,
    max_wait_s: float,
    api_key_env: str,
    log_path: Path | None,
    restart: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Ask a model every question of the aptitude test, grade its answers, and write its capability profile.

    Works with any server that speaks OpenAI's chat or text completions. The profile is what 'modelsat candidates
    add' reads. Every question, answer and grade goes to the log at once; after a kill, an outage or Ctrl-C the
    same command goes on and asks nothing twice. A run with other settings needs a log of its own.

    A rate limit holds the whole run back for as long as the endpoint asks (Retry-After). A request that times
    out, is cut off or meets an overload (408, 409, 425, 429, 5xx) is sent again up to --retries times, after
    about 1, 2, 4 ... 60 seconds, in part at random. A refused key, an unknown model or an address where nobody
    answers stops the run at once. The key comes from the environment and is never written anywhere.

    \b
    Examples:
      modelsat aptitude run --endpoint http://127.0.0.1:8000/v1 --model my-model --limit 200
      modelsat aptitude run --endpoint https://api.openai.com/v1 --model gpt-4o-mini --price 0.3 --dry-run
      modelsat aptitude run --endpoint http://127.0.0.1:8000/v1 --model base --api completions --adaptive
      modelsat aptitude run --endpoint http://127.0.0.1:8000/v1 --model thinker --max-tokens 16384 --circle
      modelsat candidates add my-model.json
    """
    if target_error is not None and not adaptive:
        raise click.UsageError("--target-error belongs to --adaptive; add it")
    if rotations is not None and not circle:
        raise click.UsageError("--rotations belongs to --circle; add it")
    if bundle is not None and test_file is not None and ctx.get_parameter_source("bundle") is _typed():
        raise click.UsageError("--bundle and --test both bring an aptitude test; give one")

    from modelsat_engine.aptitude.taking.access import ApiKey, check_url, in_the_clear
    from modelsat_engine.aptitude.taking.log import AnswerLog
    from modelsat_engine.aptitude.taking.protocol import Protocol
    from modelsat_engine.aptitude.taking.selection import select_items
    from modelsat_engine.aptitude.taking.session import Effort
    from modelsat_engine.aptitude.taking.source import find_questions
    from modelsat_engine.commands.files.parts import check_writable_folder

    name = model if name is None else name
    if not name.strip() or not model.strip():
        raise click.UsageError("the model's name is empty")
    if any("\ud800" <= character <= "\udfff" for character in model + name + notes):
        raise click.UsageError("--model, --name and --notes must be text in UTF-8")
    url = check_url(endpoint)
    protocol = Protocol(
        api=api,
        style=style,
        system=system,
        temperature=temperature,
        seed=seed,
        max_tokens=max_tokens,
        stop=stop or None,
        rotations=rotations if circle else 1,
        omit=frozenset(omit),
        extra=_extra(extra),
    )
    key = ApiKey.from_environment(
        api_key_env, required=not dry_run and ctx.get_parameter_source("api_key_env") is _typed()
    )
    if key.value and in_the_clear(url):
        warn(f"{url} is not encrypted: the key in {api_key_env} can be read on the way; use https where you can")
    output = Path(f"{_file_name(name)}.json") if output is None else output
    log_path = output.with_name(f"{output.stem}.answers.jsonl") if log_path is None else log_path
    for path in (output, log_path):
        check_writable_folder(path)
    if log_path.resolve() == output.resolve():
        raise click.UsageError("--output and --log name the same file; choose two")

    test = _aptitude_test(bundle, test_file)
    selection = select_items(test, find_questions(test, questions, warn, answer_as=answer_as), limit=limit, seed=seed)
    if selection.missing:
        warn(
            f"{len(selection.missing):,} of the test's {len(test.item_ids):,} questions have no text "
            f"({selection.missing[0]}, ...); they are not asked"
        )
    if selection.changed:
        warn(
            f"{len(selection.changed):,} questions have another text than the test was made of "
            f"({selection.changed[0]}, ...); they are not asked"
        )
    log = AnswerLog(
        log_path,
        {"--model": model, "test": test.id, "protocol": protocol.to_json()},
        {"name": name, "endpoint": url},
        restart=restart,
    )
    if dry_run:
        report_dry_run(selection, protocol, log, restart, usd, as_json)
        return
    if output.exists() and not overwrite and not (log_path.exists() and log_path.stat().st_size):
        raise DataError(
            f"{output} exists, and {log_path} does not, so that another run or tool wrote it; pass --overwrite to "
            "replace it, or choose another -o"
        )
    effort = Effort(concurrency, retries, max_wait_s, rpm)
    with log:
        if log.records and log.header.get("endpoint") != url:
            warn(f"the answers in {log_path} came from {log.header.get('endpoint')}; the rest is asked at {url}")
        enough = _certainty(test, bundle, test_file, target_error) if adaptive else None
        session = _session(selection, protocol, log, effort, url, model, key, timeout_s, stream, usd, enough)
        outcome = _take(session, len(selection.items))
        if session.tally.graded:
            profile = session.tally.profile(name, test, notes=notes, usd_per_million_tokens=usd)
            _write_profile(output, profile.to_json())
    again = _again(ctx)
    if session.tally.graded:
        summary = summarise(session, outcome, selection, test, name, model, url, output, log_path, usd)
        if as_json:
            print_json(summary)
        else:
            tell(summary)
        warn_about(session, outcome, summary)
    kept = f"{session.tally.answers:,} answers are kept in {log_path}" if session.tally.answers else "nothing was asked"
    if outcome.interrupted:
        warn(f"interrupted; {kept}; go on with: {again}")
        raise KeyboardInterrupt
    if outcome.stopped is not None:
        raise EndpointError(
            f"{outcome.stopped}; {kept}; go on with: {again}" if session.tally.answers else outcome.stopped
        )


def _typed() -> Any:
    return click.core.ParameterSource.COMMANDLINE


def _extra(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise OptionError(f'--extra is not JSON ({error}); give an object such as {{"top_p": 1}}') from error
    if not isinstance(fields, dict):
        raise OptionError('--extra must be a JSON object such as {"top_p": 1}')
    if own := sorted(OWN_FIELDS & fields.keys()):
        raise OptionError(f"--extra must not hold {own[0]!r}; this command sets it")
    return fields


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", name).strip(".-")[:100] or "model"


def _aptitude_test(bundle: Path | None, test_file: Path | None) -> AptitudeTest:
    if test_file is not None:
        from modelsat_engine.aptitude import AptitudeTest

        return AptitudeTest.load(test_file)
    from modelsat_engine.export.bundle import Bundle

    return Bundle.load(bundle).aptitude_test


def _session(
    selection: Selection,
    protocol: Protocol,
    log: AnswerLog,
    effort: Any,
    url: str,
    model: str,
    key: Any,
    timeout_s: float,
    stream: bool,
    usd: float | None,
    enough: Callable[[Mapping[str, bool]], bool] | None,
) -> Session:
    from modelsat_engine.aptitude.taking.endpoint import Endpoint
    from modelsat_engine.aptitude.taking.pacing import SystemClock
    from modelsat_engine.aptitude.taking.session import Session

    clock = SystemClock()
    model_endpoint = Endpoint(url, model, protocol, key, clock, timeout_s=timeout_s, stream=stream)
    return Session(
        selection.items,
        protocol,
        model_endpoint,
        log,
        clock,
        effort=effort,
        usd_per_million_tokens=usd,
        enough=enough or (lambda graded: False),
    )


def _certainty(
    test: AptitudeTest, bundle: Path | None, test_file: Path | None, target_error: float | None
) -> Callable[[Mapping[str, bool]], bool]:
    """Whether the answers make the profile certain enough."""
    from modelsat_engine.aptitude.adaptive import TARGET_ERROR, AdaptiveTest
    from modelsat_engine.aptitude.uncertainty import PRIOR_STRENGTH, TaskPrior

    if test_file is None:
        from modelsat_engine.export.bundle import Bundle
        from modelsat_engine.runtime.intervals import task_prior

        prior = task_prior(Bundle.load(bundle))
    else:
        prior = TaskPrior.from_profiles([], test, PRIOR_STRENGTH)
    return AdaptiveTest(test, prior, target_error or TARGET_ERROR).is_certain


def _take(session: Session, items: int) -> Outcome:
    import asyncio

    from modelsat_engine.commands.progress import ProgressBar

    with ProgressBar("asking") as bar:
        session.tell = lambda note: bar.update(len(session.tally.graded) / items, note or progress_note(session, items))
        return asyncio.run(session.run())


def _write_profile(output: Path, profile: dict[str, Any]) -> None:
    from modelsat_engine.aptitude.files import write_json

    try:
        write_json(output, profile)
    except OSError as error:
        raise DataError(f"cannot write {output}: {error.strerror or error}; the answers are in the log") from error


def _again(ctx: click.Context) -> str:
    """The command that goes on: the options as they were given, without those that would start over."""
    words = ctx.command_path.split()
    for parameter in ctx.command.params:
        given = ctx.params.get(parameter.name or "")
        if ctx.get_parameter_source(parameter.name or "") is not _typed() or parameter.name in ("restart", "overwrite"):
            continue
        option = max(parameter.opts, key=len)
        if isinstance(parameter, click.Option) and parameter.is_flag:
            words.append(option)
            continue
        for value in given if isinstance(given, tuple) else (given,):
            words += [option, shlex.quote(str(value))]
    return " ".join(words)
