"""A profile from results claims what they show, and no more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from modelsat_engine.aptitude import AptitudeTask, AptitudeTest, CapabilityProfile
from modelsat_engine.aptitude.importers.conversion import Anchor, ImportReport, profile_from_results
from modelsat_engine.aptitude.importers.equating import Counts, step_between
from modelsat_engine.aptitude.importers.results import ItemResult, Results, TaskResult
from modelsat_engine.aptitude.item_matching import ItemMatcher
from modelsat_engine.aptitude.keywords import MMLU_SUBJECTS
from modelsat_engine.errors import DataError
from tests.aptitude.result_files import SHOTS, SUBJECTS, pro_test, question

TEST = pro_test()


def convert(results: Results, test: AptitudeTest = TEST, **options: object) -> tuple[CapabilityProfile, ImportReport]:
    matcher = options.pop("matcher", None) or ItemMatcher(test)
    return profile_from_results("mine", test, results, matcher, **options)  # type: ignore[arg-type]


def answer(number: int, correct: bool, **changes: object) -> ItemResult:
    values = {"ids": (f"mmlu_pro/{number}", str(number)), "task": "health", "benchmark": "mmlu_pro", **changes}
    return ItemResult(f"line {number}", correct, **values)  # type: ignore[arg-type]


def accuracy(task: str, share: float, total: int, benchmark: str | None = "mmlu_pro") -> TaskResult:
    return TaskResult("results.json", task, share, total, benchmark)


def test_answers_to_the_tests_items_count_one_by_one() -> None:
    items = [answer(0, True), answer(1, False), answer(104, True), answer(77, True)]
    profile, report = convert(Results(items))
    assert profile.total == {"anatomy": 2, "philosophy": 1, "high_school_us_history": 0}
    assert profile.correct == {"anatomy": 1, "philosophy": 1, "high_school_us_history": 0}
    assert profile.answers == {"mmlu_pro/0": True, "mmlu_pro/1": False, "mmlu_pro/104": True}
    assert profile.test_id == TEST.id
    assert (report.items, report.items_not_in_test) == (3, 1)
    assert report.missing_tasks == ["high_school_us_history"]
    assert report.unknown_tasks == [], "the category 'health' is where the items were found"


def test_the_same_answer_twice_counts_once_and_two_answers_are_refused() -> None:
    profile, report = convert(Results([answer(0, True), answer(0, True)]))
    assert (sum(profile.total.values()), report.duplicates) == (1, 1)
    both = Results([answer(0, True), answer(0, False)])
    with pytest.raises(DataError, match="item 'mmlu_pro/0' is right in line 0 and wrong in line 0"):
        convert(both)
    assert convert(both, duplicates="first")[0].answers == {"mmlu_pro/0": True}
    assert convert(both, duplicates="last")[0].answers == {"mmlu_pro/0": False}


def test_content_finds_an_item_whatever_its_id_and_refuses_another_question_of_its_id() -> None:
    matcher = ItemMatcher(pro_test(hashes=True))
    renamed = answer(0, True, ids=("theirs/77",), content=question(0).hash)
    profile, _ = convert(Results([renamed]), matcher=matcher)
    assert profile.answers == {"mmlu_pro/0": True}
    wrong = Results([answer(0, True, content=question(55).hash), answer(1, True, content=question(1).hash)])
    profile, report = convert(wrong, matcher=matcher)
    assert profile.answers == {"mmlu_pro/1": True}
    assert report.content_differs == 1
    trusting = ItemMatcher(pro_test(hashes=True), trust_ids=True)
    assert set(convert(wrong, matcher=trusting)[0].answers or {}) == {"mmlu_pro/0", "mmlu_pro/1"}
    with pytest.raises(DataError, match="other questions; these results are of another version"):
        convert(Results(wrong.items[:1]), matcher=matcher)


def test_a_question_file_gives_the_content_that_a_test_file_lacks() -> None:
    matcher = ItemMatcher(TEST, [question(i) for i in range(3)])
    assert matcher.knows_content
    assert matcher.find((), question(2).hash) == ("mmlu_pro/2", False)
    assert not ItemMatcher(TEST).knows_content


@pytest.mark.parametrize(("total", "counted", "correct"), [(1101, SHOTS, 3), (SHOTS, SHOTS, 3), (2, 2, 1)])
def test_an_accuracy_counts_as_at_most_as_many_answers_as_the_test_has(total: int, counted: int, correct: int) -> None:
    profile, report = convert(Results(tasks=[accuracy("Anatomy", 0.6, total, None)]))
    assert (profile.correct["anatomy"], profile.total["anatomy"]) == (correct, counted)
    assert profile.answers is None
    assert report.tasks_from_accuracy == ["anatomy"]


def test_answers_go_before_accuracies_of_the_same_task() -> None:
    results = Results([answer(0, True)], [accuracy("anatomy", 0.1, 1000, None)])
    profile, report = convert(results)
    assert (profile.correct["anatomy"], profile.total["anatomy"]) == (1, 1)
    assert report.tasks_from_accuracy == []


def test_task_names_are_compared_by_letters_and_digits() -> None:
    profile, _ = convert(Results(tasks=[accuracy("High School U.S. History", 1.0, 50, None)]))
    assert profile.total["high_school_us_history"] == SHOTS


def test_a_category_of_mmlu_pro_is_not_the_subject_of_the_same_name() -> None:
    with pytest.raises(DataError, match="MMLU-Pro reports 14 categories, the test asks by subject"):
        convert(Results(tasks=[accuracy("philosophy", 0.5, 499)]))
    categories = AptitudeTest(
        tuple(AptitudeTask(name, (f"{name} words",), (f"mmlu_pro/{name}",)) for name in ("philosophy", "law"))
    )
    profile, _ = convert(Results(tasks=[accuracy("philosophy", 0.5, 499)]), categories)
    assert profile.total["philosophy"] == 1


def test_accuracies_on_another_benchmark_are_refused_with_a_way_out() -> None:
    easy = Results(tasks=[accuracy(task, 0.8, 150, "mmlu") for task in SUBJECTS])
    with pytest.raises(DataError, match=r"measured on mmlu, the aptitude test asks questions of mmlu_pro.*--anchor"):
        convert(easy)
    with_answers = Results([answer(0, True)], easy.tasks)
    profile, report = convert(with_answers)
    assert sum(profile.total.values()) == 1
    assert report.other_benchmark == ["high_school_us_history", "philosophy"]
    assert "were not used" in report.remarks[-1]


def test_as_is_takes_them_and_says_so() -> None:
    easy = Results(tasks=[accuracy(task, 0.8, 150, "mmlu") for task in SUBJECTS])
    profile, report = convert(easy, as_is=True)
    assert profile.accuracy == pytest.approx(0.8)
    assert "looks stronger or weaker than it is" in report.remarks[-1]


def test_samples_of_another_benchmark_are_accuracies_of_their_task() -> None:
    items = [answer(i, i % 2 == 0, ids=(), task="anatomy", benchmark="mmlu") for i in range(10)]
    with pytest.raises(DataError, match="another scale"):
        convert(Results(items))
    assert convert(Results(items), as_is=True)[0].correct["anatomy"] == 3, "half of five, rounded up"


def test_items_of_nobody_knows_which_benchmark_are_not_summed_up() -> None:
    unknown = [ItemResult("row 1", True, ("other/1",), task="anatomy")]
    with pytest.raises(DataError, match="1 answers to items such as 'other/1'"):
        convert(Results(unknown))


def test_contradicting_accuracies_are_refused_and_told() -> None:
    twice = Results(tasks=[accuracy("anatomy", 0.4, 135, None), accuracy("anatomy", 0.6, 135, None)])
    with pytest.raises(DataError, match=r"task 'anatomy' is 0\.4 of 135 .* and 0\.6 of 135"):
        convert(twice)
    assert convert(twice, duplicates="last")[0].correct["anatomy"] == 3
    items = [answer(i, True, ids=(), task="anatomy", benchmark="mmlu") for i in range(10)]
    _, report = convert(Results(items, [accuracy("anatomy", 0.4, 10, "mmlu")]), as_is=True)
    assert "the results say 0.4, the samples give 1; the samples count" in report.remarks[0]


def test_results_that_say_nothing_are_refused_with_what_is_there() -> None:
    with pytest.raises(DataError, match=r"nothing here says anything.* the tasks hellaswag, mmlu_pro/law"):
        convert(Results(tasks=[accuracy("hellaswag", 0.5, 10, None), accuracy("law", 0.5, 10)]))
    with pytest.raises(DataError, match="no results at all"):
        convert(Results())


# ---- two benchmarks: a simulated world in which the answer is known -------------------------------------------------


def logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.fixture(scope="module")
def world() -> dict[str, object]:
    """Models of known ability on 40 subjects; one benchmark is easier by 1.6 in log-odds, a little more or less."""
    rng = np.random.default_rng(11)
    subjects = sorted(MMLU_SUBJECTS)[:40]
    test = AptitudeTest(
        tuple(AptitudeTask(s, MMLU_SUBJECTS[s], tuple(f"mmlu_pro/{s}{i}" for i in range(20))) for s in subjects)
    )
    ability = rng.normal(0, 0.8, (8, 1)) + rng.normal(0, 0.3, (8, len(subjects)))  # [models, tasks]
    difficulty = rng.normal(0, 0.5, len(subjects))
    step = rng.normal(-1.6, 0.2, len(subjects))
    hard = logistic(ability - difficulty + step)
    easy = rng.binomial(150, logistic(ability - difficulty)) / 150
    return {"test": test, "subjects": subjects, "hard": hard, "easy": easy, "counts": rng.binomial(20, hard)}


def easy_results(world: dict[str, object], model: int) -> Results:
    shares: np.ndarray = world["easy"][model]  # type: ignore[index]
    subjects: Sequence[str] = world["subjects"]  # type: ignore[assignment]
    return Results(tasks=[accuracy(s, float(a), 150, "mmlu") for s, a in zip(subjects, shares, strict=True)])


def test_anchors_carry_accuracies_over_to_the_other_scale(world: dict[str, object]) -> None:
    test: AptitudeTest = world["test"]  # type: ignore[assignment]
    subjects: Sequence[str] = world["subjects"]  # type: ignore[assignment]
    counts: np.ndarray = world["counts"]  # type: ignore[assignment]
    anchors = [
        Anchor(
            easy_results(world, model),
            CapabilityProfile(
                f"anchor {model}",
                dict(zip(subjects, counts[model].tolist(), strict=True)),
                dict.fromkeys(subjects, 20),
                test_id=test.id,
            ),
        )
        for model in (0, 1)
    ]
    errors, inflated = [], []
    for model in range(2, 8):
        truth = float(world["hard"][model].mean())  # type: ignore[index]
        profile, report = convert(easy_results(world, model), test, anchors=anchors)
        assert report.step is not None
        assert report.step.pairs == 80
        assert set(profile.total.values()) <= set(range(1, 21))
        errors.append(profile.accuracy - truth)
        inflated.append(convert(easy_results(world, model), test, as_is=True)[0].accuracy - truth)
    print("carried over:", np.round(errors, 3), "as they are:", np.round(inflated, 3))
    assert np.abs(errors).max() < 0.04
    assert np.mean(inflated) > 0.2, "without anchors the easier benchmark flatters every model"


def test_an_uncertain_step_leaves_fewer_answers() -> None:
    steady = step_between([(Counts(100, 150), Counts(8, 20))] * 30)
    wild = step_between([(Counts(100, 150), Counts(c, 20)) for c in (1, 19) * 15])
    assert steady.between == 0
    assert wild.between > 1
    assert wild.carry(Counts(100, 150), 20).total < steady.carry(Counts(100, 150), 20).total <= 20
    assert steady.carry(Counts(2, 3), 20).total <= 3, "three answers stay three answers"
    many = step_between([(Counts(100, 150), Counts(c, 20)) for c in (1, 19) * 3000])
    assert many.variance < 0.01
    assert many.carry(Counts(10**5, 10**6), 20).total <= 4, "a step that varies by task is unknown for the next one"
    with pytest.raises(DataError, match="at least two"):
        step_between([(Counts(1, 2), Counts(1, 2))])
