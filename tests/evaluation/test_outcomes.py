"""Outcome files join into one panel, and bad files are named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from modelsat_engine.errors import DataError
from modelsat_engine.evaluation.model_names import expert_notes, family_of, normalised_name
from modelsat_engine.evaluation.outcomes import GSM8K_PANEL, MAIN_PANEL, OPEN_PANEL, OutcomeData
from tests.evaluation.synthetic import write_outcomes


@pytest.fixture
def directory(tmp_path: Path, data: OutcomeData) -> Path:
    return write_outcomes(tmp_path / "outcomes", data)


def test_panels_join_by_key_and_gsm8k_by_clean_name(directory: Path, data: OutcomeData) -> None:
    loaded = OutcomeData.load(directory)
    assert loaded.model_keys == data.model_keys
    assert loaded.questions.instruction == data.questions.instruction
    gsm8k = data.questions.benchmark == "gsm8k"
    np.testing.assert_array_equal(loaded.Y[:, ~gsm8k], data.Y[:, ~gsm8k])
    np.testing.assert_array_equal(loaded.usd_per_million_tokens, data.usd_per_million_tokens)
    row = data.model_keys.index("olb2/maker/scorer-3")
    # measured twice; the harness of this row's protocol is taken
    np.testing.assert_array_equal(loaded.Y[row, gsm8k], data.Y[row, gsm8k])
    others = np.delete(np.arange(len(loaded.model_keys)), row)
    assert (loaded.Y[np.ix_(others, gsm8k)] == -1).all()


def test_strength_is_accuracy_on_known_mmlu_pro_questions(data: OutcomeData) -> None:
    main = data.questions.benchmark == "mmlu_pro"
    for row in (0, 7, len(data.model_keys) - 1):
        known = data.Y[row, main][data.Y[row, main] >= 0]
        assert data.strength[row] == pytest.approx(known.mean())


def test_rows_and_columns_are_found_by_name(data: OutcomeData) -> None:
    assert data.rows([data.model_keys[4], data.model_keys[1]]).tolist() == [4, 1]
    assert data.columns([data.questions.id[9]]).tolist() == [9]
    with pytest.raises(DataError, match="'nobody'"):
        data.rows(["nobody"])
    with pytest.raises(DataError, match="'nothing'"):
        data.columns(["nothing"])


@pytest.mark.parametrize("name", ["questions.parquet", "models.csv", MAIN_PANEL, OPEN_PANEL, GSM8K_PANEL])
def test_a_missing_file_is_named(directory: Path, name: str) -> None:
    (directory / name).unlink()
    with pytest.raises(DataError, match=name):
        OutcomeData.load(directory)


@pytest.mark.parametrize("name", ["questions.parquet", MAIN_PANEL, OPEN_PANEL, GSM8K_PANEL])
@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_a_damaged_file_is_named(directory: Path, name: str, content: bytes) -> None:
    (directory / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        OutcomeData.load(directory)


def test_a_directory_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a directory"):
        OutcomeData.load(tmp_path / "nowhere")


def test_csv_without_a_column_or_a_model_or_a_price_is_named(directory: Path) -> None:
    path = directory / "models.csv"
    text = path.read_text()
    path.write_text(text.replace("protocol", "procedure", 1))
    with pytest.raises(DataError, match="protocol"):
        OutcomeData.load(directory)
    path.write_text("\n".join(line for line in text.splitlines() if "scorer-4" not in line))
    with pytest.raises(DataError, match="scorer-4"):
        OutcomeData.load(directory)
    path.write_text(text.replace(",0.25\n", ",cheap\n", 1))
    assert path.read_text() != text
    with pytest.raises(DataError, match="cheap"):
        OutcomeData.load(directory)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda Y, models, questions: (Y[:, :-1], models, questions), "shape"),
        (lambda Y, models, questions: (Y, models, np.array(["mmlu_pro/unheard", *questions[1:]])), "unheard"),
        (lambda Y, models, questions: (np.where(Y == 1, 2, Y).astype(np.int8), models, questions), "only 1"),
        (lambda Y, models, questions: (Y, np.array([models[1], *models[1:]]), questions), "twice"),
    ],
)
def test_a_panel_that_contradicts_itself_is_refused(
    directory: Path, change: Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]], words: str
) -> None:
    with np.load(directory / MAIN_PANEL) as panel:
        Y, models, questions = change(panel["Y"], panel["models"], panel["questions"])
    np.savez(directory / MAIN_PANEL, Y=Y, models=models, questions=questions)
    with pytest.raises(DataError, match=words):
        OutcomeData.load(directory)


def test_objects_in_a_panel_are_never_unpickled(directory: Path) -> None:
    with np.load(directory / MAIN_PANEL) as panel:
        arrays = dict(panel)
    np.savez(directory / MAIN_PANEL, **{**arrays, "models": arrays["models"].astype(object)})
    with pytest.raises(DataError, match=MAIN_PANEL):
        OutcomeData.load(directory)


def test_outcomes_of_another_shape_or_type_are_refused(data: OutcomeData) -> None:
    with pytest.raises(DataError, match="shape"):
        replace(data, Y=data.Y[:-1])
    with pytest.raises(DataError, match="int8"):
        replace(data, Y=data.Y.astype(np.float32))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("meta-llama/Meta-Llama-3.1-70B-Instruct#carrot", "Meta-Llama-3_1-70B-Instruct"),
        ("Stark2008/VisFlamCat", "Stark2008/GutenLaserPi"),
        ("Orenguteng/Llama-3.1-8B-Lexi-Uncensored", "Orenguteng/Llama-3.1-8B-Lexi-Uncensored-V2"),
        ("awnr/Mistral-7B-v0.1-signtensors-7-over-16", "awnr/Mistral-7B-v0.1-signtensors-1-over-4"),
        ("migtissera/Trinity-2-Codestral-22B", "migtissera/Trinity-2-Codestral-22B-v0.2"),
        ("Intel/neural-chat-7b-v3-1", "Intel/neural-chat-7b-v3-3"),
        ("OpenAI/GPT-4o-2024-05-13", "OpenAI/GPT-4o-2024-08-06"),
    ],
)
def test_near_duplicates_are_one_family(one: str, other: str) -> None:
    assert family_of(one) == family_of(other)


def test_different_models_are_different_families() -> None:
    names = ["Yi-6B", "Yi-6b-Chat", "Meta-Llama-3-70B", "Meta-Llama-3_1-70B", "Llama-2-13b-hf", "Llama-2-13b-chat-hf"]
    assert len({family_of(name) for name in names}) == len(names)
    assert normalised_name("hub/Meta-Llama-3_1-8B-hf@cloud") == "llama-3.1-8b"


@pytest.mark.parametrize(
    ("key", "notes"),
    [
        ("mmlu_pro_cot/Llama-2-7b-hf", "base model; answers with chain of thought"),
        ("olb2/google/gemma-2b-it", "instruction-tuned; scored by log-likelihood"),
        ("olb2/OpenAI/GPT-4o-2024-08-06", "instruction-tuned"),
        ("olb2/Aryanne/SuperHeart", "scored by log-likelihood"),
        ("house/unknown-model", ""),
    ],
)
def test_expert_notes_say_what_the_key_tells_and_no_more(key: str, notes: str) -> None:
    assert expert_notes(key) == notes
