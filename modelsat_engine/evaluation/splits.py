"""Who trains the router and who judges it: models by family, questions by text, datasets by name."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelsat_engine.aptitude.test import AptitudeTest
from modelsat_engine.errors import DataError
from modelsat_engine.evaluation.model_names import family_of
from modelsat_engine.evaluation.outcomes import OutcomeData

NEW_BENCHMARKS = ("musr", "gsm8k")  # never trained on, whole
NEW_BBH_TASKS = 5  # never trained on either
MODEL_BLOCK = ("seen",) * 7 + ("validation",) + ("new",) * 2  # of ten families next to each other in strength
VALIDATION_SHARE, TEST_SHARE = 0.07, 0.18


@dataclass(frozen=True)
class ModelGroups:
    """Model keys by what the router may know of them.

    Attributes:
        seen: their outcomes on training questions train the router.
        validation: decide when training stops, never train.
        new: judged only; the router meets them as profiles.
    """

    seen: tuple[str, ...]
    validation: tuple[str, ...]
    new: tuple[str, ...]

    @classmethod
    def make(cls, data: OutcomeData, seed: int) -> ModelGroups:
        """Split the families 70 / 10 / 20 % inside blocks of ten of similar strength.

        Needs no aptitude test, so the test can be built from the seen models. Depends only on the seed, the
        names and the order of strength.
        """
        rows_of: dict[str, list[int]] = defaultdict(list)
        for row, family in enumerate(data.families):
            rows_of[family].append(row)
        strength = {family: float(np.nanmean(data.strength[rows])) for family, rows in rows_of.items()}
        ranked = sorted(rows_of, key=lambda family: (-strength[family], family))
        group_of: dict[str, str] = {}
        for start in range(0, len(ranked), len(MODEL_BLOCK)):
            block = sorted(ranked[start : start + len(MODEL_BLOCK)], key=lambda f: share_of(seed, "model", f))
            labels = MODEL_BLOCK if len(block) == len(MODEL_BLOCK) else _short_block(len(block))
            group_of.update(zip(block, labels, strict=True))
        keys: dict[str, list[str]] = {"seen": [], "validation": [], "new": []}
        for key, family in zip(data.model_keys, data.families, strict=True):
            keys[group_of[family]].append(key)
        return cls(tuple(keys["seen"]), tuple(keys["validation"]), tuple(keys["new"]))


@dataclass(frozen=True, eq=False)
class Split:
    """Model rows and question columns of one :class:`OutcomeData`, by purpose.

    Attributes:
        seed: what :meth:`make` was called with.
        test_id: the aptitude test whose items are in none of the question groups.
        models: the model keys by group.
        new_tasks: names ``benchmark/task`` of what is never trained on, sorted.
        seen_rows, validation_rows, new_rows: int64 row numbers of those that answered an aptitude item at all.
        train, validation, test: int64 column numbers, questions of tasks that are trained on.
        new_datasets: int64 column numbers, every question of ``new_tasks``.
    """

    seed: int
    test_id: str
    models: ModelGroups
    new_tasks: tuple[str, ...]
    seen_rows: np.ndarray
    validation_rows: np.ndarray
    new_rows: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    new_datasets: np.ndarray

    @classmethod
    def make(cls, data: OutcomeData, test: AptitudeTest, seed: int) -> Split:
        """The split of this seed. Deterministic from seed, names and texts, by sha256 and not by numpy's order.

        The test is built before from ``ModelGroups.make(data, seed).seen`` and should avoid ``new_tasks(data, seed)``.
        """
        return cls._assemble(data, test, seed, ModelGroups.make(data, seed), new_tasks(data, seed))

    def to_json(self) -> dict[str, Any]:
        """What router.json records. Questions are recomputed from the seed and their texts; only counts are kept."""
        return {
            "seed": self.seed,
            "aptitude_test_id": self.test_id,
            "models": {
                "seen": list(self.models.seen),
                "validation": list(self.models.validation),
                "new": list(self.models.new),
            },
            "new_tasks": list(self.new_tasks),
            "questions": {
                "train": len(self.train),
                "validation": len(self.validation),
                "test": len(self.test),
                "new_datasets": len(self.new_datasets),
            },
        }

    @classmethod
    def from_json(cls, recorded: Mapping[str, Any], data: OutcomeData, test: AptitudeTest) -> Split:
        """The recorded split on ``data``, which may hold more models and questions than the recorded ones.

        A model that the record does not name is new, unless it is of a family the router was trained or tuned
        on: then it is left out, for it is neither seen nor new. A question's group follows from the seed and its
        text, so further questions fall into place by themselves. Recorded models that ``data`` lacks are left out.

        Raises:
            DataError: the record is malformed, or belongs to another aptitude test.
        """
        try:
            seed, test_id, recorded_tasks = recorded["seed"], recorded["aptitude_test_id"], recorded["new_tasks"]
            groups = {name: frozenset(recorded["models"][name]) for name in ("seen", "validation", "new")}
        except (KeyError, TypeError) as error:
            raise DataError(f"the recorded split lacks {error}; train the router again to record one") from error
        if test_id != test.id:
            raise DataError(f"the recorded split belongs to the aptitude test {test_id}, not to {test.id}")
        known_families = {family_of(key.partition("/")[2]) for name in ("seen", "validation") for key in groups[name]}
        seen, validation, new = [], [], []
        for key, family in zip(data.model_keys, data.families, strict=True):
            if key in groups["seen"]:
                seen.append(key)
            elif key in groups["validation"]:
                validation.append(key)
            elif key in groups["new"] or family not in known_families:
                new.append(key)
        models = ModelGroups(tuple(seen), tuple(validation), tuple(new))
        return cls._assemble(data, test, seed, models, tuple(recorded_tasks))

    @classmethod
    def _assemble(
        cls, data: OutcomeData, test: AptitudeTest, seed: int, models: ModelGroups, tasks: tuple[str, ...]
    ) -> Split:
        stems = [question_stem(text) for text in data.questions.instruction]
        items = {stem for stem, name in zip(stems, data.questions.id.tolist(), strict=True) if name in test.item_ids}
        is_item = np.isin(data.questions.id, sorted(test.item_ids))
        took_test = np.asarray(data.known[:, is_item].any(axis=1))  # [M]
        columns: dict[str, list[int]] = {"train": [], "validation": [], "test": [], "new_datasets": []}
        held_out = frozenset(tasks)
        for column, (stem, task) in enumerate(zip(stems, task_paths(data), strict=True)):
            if stem in items:
                continue
            if task in held_out or task.partition("/")[0] in NEW_BENCHMARKS:
                columns["new_datasets"].append(column)
            else:
                columns[_question_group(seed, stem)].append(column)
        return cls(
            seed,
            test.id,
            models,
            tasks,
            *(rows[took_test[rows]] for rows in map(data.rows, (models.seen, models.validation, models.new))),
            **{name: np.array(value, np.int64) for name, value in columns.items()},
        )


def task_paths(data: OutcomeData) -> list[str]:
    """``benchmark/task`` of every question, Q strings."""
    pairs = zip(data.questions.benchmark.tolist(), data.questions.task.tolist(), strict=True)
    return [f"{benchmark}/{task}" for benchmark, task in pairs]


def new_tasks(data: OutcomeData, seed: int) -> tuple[str, ...]:
    """Names ``benchmark/task`` that are never trained on: MuSR, GSM8K, and five BBH tasks drawn by the seed.

    BBH tasks that come in several sizes (three, five, seven objects) are siblings and stay trained on: leaving
    out one of them would not make a new dataset.
    """
    tasks = set(task_paths(data))
    whole = {task for task in tasks if task.partition("/")[0] in NEW_BENCHMARKS}
    single = [task for task in tasks if task.startswith("bbh/") and not task.endswith("_objects")]
    drawn = sorted(single, key=lambda task: share_of(seed, "task", task))[:NEW_BBH_TASKS]
    return tuple(sorted(whole.union(drawn)))


def question_stem(instruction: str) -> str:
    """The question without its lettered options, case and spacing: equal stems share a side of every split."""
    return " ".join(instruction.split("\nA. ", 1)[0].lower().split())


def _question_group(seed: int, stem: str) -> str:
    share = share_of(seed, "question", stem)
    if share < TEST_SHARE:
        return "test"
    return "validation" if share < TEST_SHARE + VALIDATION_SHARE else "train"


def share_of(seed: int, kind: str, name: str) -> float:
    """A number in [0, 1) that looks random and depends on nothing but its arguments."""
    digest = hashlib.sha256(f"{seed}/{kind}/{name}".encode("utf-8", errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _short_block(size: int) -> Iterable[str]:
    """Labels of the weakest families, fewer than ten: about 20 % new, 10 % validation, the rest seen."""
    new, validation = round(size * 0.2), round(size * 0.1)
    return ("seen",) * (size - new - validation) + ("validation",) * validation + ("new",) * new
