"""Build the aptitude test of the shipped router from real outcomes, and the profiles of the models that took it.

Core-task sampling by distinguishability: an item that about half of the known models answer right tells most
about one more model. The weight of an item is p (1 - p), the variance of one answer, with p its share of right
answers among the models the router trains on.

Items are *sampled* by that weight, not taken from the top. Measured on six splits of the outcome data, with 40 %
of the questions set aside as the target (error of a held-out model's accuracy on a task predicted from its 20 answers
there and its overall score, and of its overall accuracy, lower is better; spread of difficulty is the sd of p):

    rule                            task RMSE   overall error   spread of difficulty
    uniform                         .0699       .0119           .24
    weighted sample, p (1 - p)      .0689       .0116           .21      <- used
    weighted sample, times r        .0704       .0145           .20
    top 20 by p (1 - p)             .0721       .0154           .12
    top 20 by p (1 - p) times r     .0760       .0207           .15

where r is the item-total correlation. Items of one difficulty saturate for weak and strong models alike, and r
rewards what the training models have in common, which is not what a new model brings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from modelsat_engine.aptitude.keywords import MMLU_SUBJECTS
from modelsat_engine.aptitude.profile import CapabilityProfile
from modelsat_engine.aptitude.sampling import PoolItem, distinguishability, sample_test
from modelsat_engine.aptitude.test import AptitudeTest
from modelsat_engine.errors import DataError
from modelsat_engine.evaluation.model_names import expert_notes
from modelsat_engine.evaluation.outcomes import RIGHT, OutcomeData
from modelsat_engine.evaluation.splits import ModelGroups, question_stem, task_paths

MMLU_PREFIX = "mmlu_pro/ori_mmlu-"

# Rows of one harness, so that their scores compare; all have a price in models.csv.
DEFAULT_ZOO = {
    "Llama-3.1-70B-Instruct": "olb2/meta-llama/Meta-Llama-3.1-70B-Instruct#carrot",
    "Llama-3.1-Nemotron-70B-Instruct": "olb2/nvidia/Llama-3.1-Nemotron-70B-Instruct-HF",
    "Qwen2-72B-Instruct": "olb2/Qwen/Qwen2-72B-Instruct",
    "deepseek-llm-67b-chat": "olb2/deepseek-ai/deepseek-llm-67b-chat",
    "gemma-2-27b-it": "olb2/google/gemma-2-27b-it",
    "Mixtral-8x7B-Instruct-v0.1": "olb2/mistralai/Mixtral-8x7B-Instruct-v0.1",
    "Qwen2.5-7B-Instruct": "olb2/Qwen/Qwen2.5-7B-Instruct",
    "Llama-2-13b-chat": "olb2/meta-llama/Llama-2-13b-chat-hf",
    "Mistral-7B-Instruct-v0.2": "olb2/mistralai/Mistral-7B-Instruct-v0.2",
    "gemma-2b-it": "olb2/google/gemma-2b-it",
}


def build_test(
    data: OutcomeData,
    rows: np.ndarray,
    *,
    seed: int,
    keywords: Mapping[str, Sequence[str]] | None = None,
    num_tasks: int = 50,
    items_per_task: int = 20,
) -> AptitudeTest:
    """Choose the tasks and items that tell models apart best.

    A task's usable items are those that at least half of ``rows`` answered, with p strictly between 0 and 1, one
    per question stem; :func:`~modelsat_engine.aptitude.sampling.sample_test` draws from them.

    Args:
        rows: int64, model rows whose outcomes may be looked at: the seen training models and no others.
        seed: chooses the sample; the same seed, data and rows give the same test.
        keywords: the tasks to draw from, name -> five keywords. A name is an MMLU subject or ``benchmark/task``.
            Default: the 56 MMLU subjects of MMLU-Pro.

    Returns:
        The test, tasks sorted by name, items sorted inside a task.

    Raises:
        DataError: no rows, or fewer than ``num_tasks`` tasks have enough usable items.
    """
    keywords = MMLU_SUBJECTS if keywords is None else keywords
    if not len(rows):
        raise DataError("an aptitude test is built from the outcomes of some models; give at least one row")
    weight = item_weights(data, rows)  # [Q]
    columns_of = _columns_by_task(data, weight)
    ids = data.questions.id
    pools = {
        name: [PoolItem(str(ids[column]), float(weight[column])) for column in columns_of.get(_task_path(name), [])]
        for name in keywords
    }
    return sample_test(pools, keywords, seed=seed, num_tasks=num_tasks, items_per_task=items_per_task)


def build_reference_test(data: OutcomeData, split_seed: int) -> AptitudeTest:
    """The test that training uses: 50 MMLU subjects x 20 items, from the seen models of this split."""
    rows = data.rows(ModelGroups.make(data, split_seed).seen)
    return build_test(data, rows, seed=split_seed)


def item_weights(data: OutcomeData, rows: np.ndarray) -> np.ndarray:
    """Distinguishability p (1 - p) of every question among ``rows``.

    Returns:
        float64 ``[Q]``; 0 where fewer than half of the rows have an outcome, or all agree.
    """
    return distinguishability(data.Y[rows])


def profiles_from_outcomes(
    data: OutcomeData, test: AptitudeTest, rows: Sequence[int] | np.ndarray | None = None
) -> list[CapabilityProfile]:
    """Profiles of real models, graded on the aptitude items by their real outcomes.

    Args:
        rows: model rows, default all.

    Returns:
        One profile per row, in order: name is the model key, with answers, expert notes and the price if known.

    Raises:
        ProfileError: a row has no outcome on any item.
        DataError: the data lacks an item of the test.
    """
    items = sorted(test.item_ids)
    outcomes = data.Y[:, data.columns(items)]  # [M, items]
    profiles = []
    for row in range(len(data.model_keys)) if rows is None else rows:
        answers = {item: y == RIGHT for item, y in zip(items, outcomes[row].tolist(), strict=True) if y >= 0}
        price = float(data.usd_per_million_tokens[row])
        profiles.append(
            CapabilityProfile.from_answers(
                data.model_keys[row],
                test,
                answers,
                notes=expert_notes(data.model_keys[row]),
                usd_per_million_tokens=None if np.isnan(price) else round(price, 6),  # float32 0.9 is 0.8999999
            )
        )
    return profiles


def default_zoo(data: OutcomeData, test: AptitudeTest) -> list[CapabilityProfile]:
    """About ten well-known models with prices, strongest class first: the shipped bundle's candidates.

    Raises:
        DataError: the data lacks one of them.
    """
    zoo = []
    for name, profile in zip(
        DEFAULT_ZOO, profiles_from_outcomes(data, test, data.rows(DEFAULT_ZOO.values())), strict=True
    ):
        zoo.append(CapabilityProfile.from_json({**profile.to_json(), "name": name}))
    return zoo


def _task_path(name: str) -> str:
    return name if "/" in name else MMLU_PREFIX + name


def _columns_by_task(data: OutcomeData, weight: np.ndarray) -> dict[str, list[int]]:
    """Usable columns of every task; of several questions with one stem the first stays."""
    columns_of: dict[str, list[int]] = {}
    stems: set[str] = set()
    for column, (path, text) in enumerate(zip(task_paths(data), data.questions.instruction, strict=True)):
        if weight[column] <= 0:
            continue
        stem = question_stem(text)
        if stem not in stems:
            stems.add(stem)
            columns_of.setdefault(path, []).append(column)
    return columns_of
