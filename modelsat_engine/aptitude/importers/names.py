"""What benchmarks call their tasks: `mmlu_anatomy`, `hendrycksTest-anatomy` and "Anatomy" are one MMLU subject."""

from __future__ import annotations

import re

from modelsat_engine.aptitude.keywords import MMLU_SUBJECTS

#: MMLU-Pro reports by these; they are not MMLU's subjects, though "philosophy" names one of either.
MMLU_PRO_CATEGORIES = (
    "biology",
    "business",
    "chemistry",
    "computer science",
    "economics",
    "engineering",
    "health",
    "history",
    "law",
    "math",
    "other",
    "philosophy",
    "physics",
    "psychology",
)
_GROUPS = ("", "stem", "humanities", "social_sciences", "other")


def squashed(name: str) -> str:
    """A task's name as it is compared: letters and digits in lower case."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def split_task_name(name: str) -> tuple[str | None, str]:
    """(benchmark, task) of a task's name in the evaluation harness; (None, name) for one of no benchmark known here.

    ``mmlu_pro_law`` is ("mmlu_pro", "law"), ``mmlu_flan_n_shot_generative_anatomy`` and ``hendrycksTest-anatomy``
    are ("mmlu", "anatomy"); a whole benchmark has the task "".
    """
    plain = name.removeprefix("leaderboard_")
    if plain == "mmlu_pro" or plain.startswith("mmlu_pro_"):
        return "mmlu_pro", plain.removeprefix("mmlu_pro").removeprefix("_")
    if plain.startswith("hendrycksTest-"):
        return "mmlu", plain.removeprefix("hendrycksTest-")
    if plain == "mmlu" or plain.startswith("mmlu_"):
        rest = plain.removeprefix("mmlu").removeprefix("_")
        inside = [s for s in MMLU_SUBJECTS if rest.startswith(f"{s}_") or rest.endswith(f"_{s}")]
        return "mmlu", rest if rest in MMLU_SUBJECTS or not inside else max(inside, key=len)
    for benchmark in ("bbh", "gsm8k", "ifeval", "musr"):
        if plain == benchmark or plain.startswith(f"{benchmark}_"):
            return benchmark, plain.removeprefix(benchmark).removeprefix("_")
    return None, name


def is_group(benchmark: str | None, task: str) -> bool:
    """Whether a task is a sum over other tasks, such as ``mmlu_stem``, or ``mmlu_pro`` as a whole."""
    return (benchmark == "mmlu" and task in _GROUPS) or (benchmark is not None and task == "")
