"""`modelsat aptitude import`: a capability profile from results that exist, without asking the model anything."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelsat_engine.commands.aptitude.profiles import find_profile, open_test, output_options, output_path, test_option
from modelsat_engine.commands.console import one_line, print_json, warn
from modelsat_engine.commands.options import bundle_option, json_option, zoo_option
from modelsat_engine.errors import DataError

if TYPE_CHECKING:
    from modelsat_engine.aptitude import AptitudeTest, CapabilityProfile
    from modelsat_engine.aptitude.importers.conversion import ImportReport


@click.command("import", short_help="Make a profile from results of lm-eval, HELM or a table.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="What the gateway calls the model.")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["lm-eval", "helm", "csv"]),
    help="What FILE is.  [default: by what is in it]",
)
@bundle_option
@test_option
@click.option(
    "--questions",
    metavar="FILE",
    help="The test's questions (jsonl, csv, parquet), to find its items by their content where results have no ids.",
)
@click.option("--trust-ids", is_flag=True, help="Believe an item's id even where its question differs from the test's.")
@click.option("--metric", metavar="NAME", help="Which metric says right or wrong.  [default: acc, exact_match, ...]")
@click.option("--filter", "filter_name", metavar="NAME", help="lm-eval: which answer filter.  [default: the first]")
@click.option("--model", metavar="NAME", help="csv: whose rows, where there is a column 'model'.")
@click.option(
    "--duplicates",
    type=click.Choice(["error", "first", "last"]),
    default="error",
    show_default=True,
    help="Which of two different results for one item or task counts.",
)
@click.option(
    "--anchor",
    "anchors",
    multiple=True,
    metavar="FILE=CANDIDATE",
    help="Results of a candidate on the same other benchmark, to carry accuracies over by; may be repeated.",
)
@zoo_option
@click.option("--as-is", is_flag=True, help="Take accuracies on another benchmark as if they were on the test's.")
@click.option("--notes", default="", help="Expert notes: languages, instruction-tuned or not, context length.")
@click.option("--price", "usd", type=float, metavar="USD", help="Price per million tokens.")
@output_options
@json_option
def command(
    files: tuple[Path, ...],
    name: str,
    format_name: str | None,
    bundle: Path | None,
    test_file: Path | None,
    questions: str | None,
    trust_ids: bool,
    metric: str | None,
    filter_name: str | None,
    model: str | None,
    duplicates: str,
    anchors: tuple[str, ...],
    zoo: Path | None,
    as_is: bool,
    notes: str,
    usd: float | None,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Make a capability profile from the results in FILE...

    FILE is a file or a folder: results_*.json and samples_*.jsonl of the lm-evaluation-harness (run it with
    --log_samples), a run of HELM, or a table (csv, jsonl, parquet) with the columns item and correct, or task,
    correct and total. Any of them may be gzipped.

    Answers to the test's own items count one by one, found by id or by content. An accuracy over a whole task of the
    same benchmark counts as at most as many answers as the test has for the task. Accuracies on another benchmark
    are on another scale and are refused, unless --anchor shows the step between the two, or --as-is is given: MMLU
    is much easier than the MMLU-Pro questions of the shipped test. Tasks without a result stay unknown.

    \b
    Examples:
      modelsat aptitude import results/my-model/ --name my-model
      modelsat aptitude import --format lm-eval samples_mmlu_pro_*.jsonl --name my-model --price 0.4
      modelsat aptitude import answers.csv --name my-model --notes "instruction-tuned" -o profiles/my-model.json
      modelsat aptitude import mmlu.json --name my-model --anchor qwen-mmlu.json=Qwen2.5-7B-Instruct
      modelsat candidates add my-model.json
    """
    from modelsat_engine.aptitude.files import write_json
    from modelsat_engine.aptitude.importers import read_results
    from modelsat_engine.aptitude.importers.conversion import Anchor, profile_from_results
    from modelsat_engine.aptitude.item_matching import ItemMatcher
    from modelsat_engine.aptitude.questions import load_questions
    from modelsat_engine.commands.progress import ProgressBar

    if anchors and as_is:
        raise click.UsageError("--anchor and --as-is exclude each other")
    path = output_path(output, name, overwrite)
    test, candidates = open_test(bundle, test_file)
    known = load_questions(questions) if questions else []
    matcher = ItemMatcher(test, known, trust_ids=trust_ids)
    if known and not matcher.knows_content:
        raise DataError(
            f"{questions} has no question of the aptitude test, whose items are such as {min(test.item_ids)!r}; "
            "bring the questions that the test names"
        )
    anchored = []
    for pair in anchors:
        file, equals, candidate = pair.rpartition("=")
        if not equals or not file or not candidate:
            raise click.BadParameter(f"{pair!r} is not FILE=CANDIDATE", param_hint="--anchor")
        theirs, _ = read_results([file], metric=metric, filter_name=filter_name, content=False)
        anchored.append(Anchor(theirs, find_profile(candidate, bundle, zoo)))
    with ProgressBar("reading results") as progress:
        results, used_format = read_results(
            files,
            format_name,
            metric=metric,
            filter_name=filter_name,
            model=model,
            content=matcher.knows_content,
            progress=progress.update,
        )
    if results.protocol and results.protocol not in notes:
        notes = "; ".join(part for part in (notes.strip(), results.protocol) if part)
    profile, report = profile_from_results(
        name,
        test,
        results,
        matcher,
        anchors=anchored,
        as_is=as_is,
        duplicates=duplicates,
        notes=notes,
        usd_per_million_tokens=usd,
    )
    _compare_protocols(results.protocol, candidates, report)
    try:
        write_json(path, profile.to_json())
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error
    _report(profile, test, report, path, used_format, results.model, as_json)


def _compare_protocols(protocol: str | None, candidates: list[CapabilityProfile], report: ImportReport) -> None:
    """Say when the candidates it will stand beside were all measured in one other way."""
    from modelsat_engine.aptitude.importers.results import CHAIN_OF_THOUGHT, LOG_LIKELIHOOD

    for other in {LOG_LIKELIHOOD, CHAIN_OF_THOUGHT} - {protocol}:
        if protocol and candidates and all(other in candidate.notes for candidate in candidates):
            report.remarks.append(
                f"the bundle's candidates were all {other}, this model {protocol}: a part of any difference is the way "
                "of asking"
            )


def _report(
    profile: CapabilityProfile,
    test: AptitudeTest,
    report: ImportReport,
    path: Path,
    format_name: str,
    model: str | None,
    as_json: bool,
) -> None:
    total = sum(profile.total.values())
    if report.missing_tasks:
        warn(
            f"no result for {len(report.missing_tasks)} of {len(test.tasks)} tasks, which stay unknown: "
            f"{_listed(report.missing_tasks)}"
        )
    if report.unknown_tasks:
        warn(f"not in the test, of the results: {_listed(report.unknown_tasks)}")
    if report.content_differs:
        warn(f"answers with an id of the test, but to another question, do not count: {report.content_differs:,}")
    if report.duplicates:
        warn(f"results that came more than once count once: {report.duplicates:,}")
    for remark in report.remarks:
        warn(remark)
    if as_json:
        summary: dict[str, Any] = {
            "profile": str(path),
            "name": profile.name,
            "format": format_name,
            "model_in_results": model,
            "aptitude_test_id": test.id,
            "accuracy": None if math.isnan(profile.accuracy) else round(profile.accuracy, 4),
            "answers": total,
            "answers_of_test": len(test.item_ids),
            "notes": profile.notes,
            **report.to_json(),
        }
        print_json(summary)
        return
    click.echo(
        f"{one_line(profile.name)}: {profile.accuracy:.1%} of {total:,} answers ({len(test.item_ids):,} make the whole "
        f"test), {len(test.tasks) - len(report.missing_tasks)} of {len(test.tasks)} tasks, from {format_name}."
    )
    if report.tasks_from_accuracy:
        click.echo(
            f"Answers to the test's own items: {report.items:,}. Tasks known from an accuracy over other questions: "
            f"{len(report.tasks_from_accuracy)}; each counts as no more answers than the test has for it."
        )
    click.echo(f"Written to {path}; add it with: modelsat candidates add {path}")


def _listed(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
