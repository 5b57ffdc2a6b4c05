"""The cut rule and the chat format: what of an instruction reaches the trunk."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelsat_engine.errors import BundleError, InstructionError
from modelsat_engine.runtime.instruction import SMALLEST_CUT_TOKENS, InstructionTokenizer
from tests.runtime.tiny_bundle import tiny_tokenizer

MAX_TOKENS = 34
BUDGET = MAX_TOKENS - 2
RAW = tiny_tokenizer()
TOKENIZER = InstructionTokenizer(tiny_tokenizer(), MAX_TOKENS)
CLS, SEP = RAW.token_to_id("[CLS]"), RAW.token_to_id("[SEP]")


def plain_ids(text: str) -> list[int]:
    return RAW.encode(text, add_special_tokens=False).ids


def head_and_tail(ids: list[int], budget: int) -> list[int]:
    """The rule for one message, over tokens of the whole text."""
    if len(ids) <= budget:
        return ids
    return ids[: budget - budget // 2] + ids[len(ids) - budget // 2 :]


def body(instruction: object, tokenizer: InstructionTokenizer = TOKENIZER) -> list[int]:
    ids = tokenizer.tokenise(instruction).token_ids  # type: ignore[arg-type]
    assert ids.dtype == np.int32
    assert (ids[0], ids[-1]) == (CLS, SEP)
    assert len(ids) <= tokenizer.max_tokens
    return ids[1:-1].tolist()


def turn(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def test_a_short_text_is_kept_whole() -> None:
    result = TOKENIZER.tokenise("Prove that two is a square.")
    assert result.token_ids.tolist() == RAW.encode("Prove that two is a square.").ids
    assert (result.total_tokens, result.truncated) == (len(result.token_ids), False)


def test_a_text_that_fills_the_budget_exactly_is_not_cut() -> None:
    assert not TOKENIZER.tokenise("a " * BUDGET).truncated
    assert TOKENIZER.tokenise("a " * (BUDGET + 1)).truncated


def test_a_long_text_keeps_head_and_tail() -> None:
    text = " ".join("abcdefghij"[i % 10] for i in range(100))
    result = TOKENIZER.tokenise(text)
    assert body(text) == head_and_tail(plain_ids(text), BUDGET)
    assert (result.total_tokens, result.truncated) == (102, True)


# Long words of one token ("abc€" is one unknown word) push the windows' edges into what is kept.
SIDES = st.text("abé\u0301", max_size=5)
WORDS = st.text("abcxyz.,-é漢", min_size=1, max_size=10) | st.builds("{}€{}".format, SIDES, SIDES)


@pytest.mark.parametrize("word", ["€aaaaaaa", "aaaaaaa€", "€aaaaaaaa", "aaaa€aaaa", "€" * 12])
@pytest.mark.parametrize("budget", range(4, 64, 3))
def test_a_word_that_a_window_cuts_is_not_taken_for_another(word: str, budget: int) -> None:
    tokenizer = InstructionTokenizer(tiny_tokenizer(), budget + 2)
    for text in (f"{word} " * 300, f"{word} " * 300 + "a " * 300, "a " * 300 + f"{word} " * 300):
        assert tokenizer.tokenise(text).token_ids[1:-1].tolist() == head_and_tail(plain_ids(text), budget)


@settings(deadline=None, max_examples=100)
@given(
    words=st.lists(WORDS, min_size=1, max_size=12),
    repeats=st.integers(1, 40),
    gap=st.sampled_from([" ", "  ", "\n", "\t "]),
    budget=st.integers(4, 60),
)
def test_windows_give_the_tokens_of_the_whole_text(words: list[str], repeats: int, gap: str, budget: int) -> None:
    """The rule over windows of characters equals the rule over all tokens, whatever the budget."""
    text = gap.join(words * repeats)
    whole = plain_ids(text)
    tokenizer = InstructionTokenizer(tiny_tokenizer(), budget + 2)
    result = tokenizer.tokenise(text)
    assert result.token_ids[1:-1].tolist() == head_and_tail(whole, budget)
    assert result.truncated == (len(whole) > budget)
    assert len(result.token_ids) <= result.total_tokens <= len(whole) + 2


@settings(deadline=None, max_examples=100)
@given(text=st.text(max_size=600))
def test_any_text_is_scored_or_refused_as_empty(text: str) -> None:
    """Surrogates without a partner, control characters, any script: never another error."""
    readable = text.replace("\0", " ").encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if plain_ids(readable):
        assert 3 <= len(TOKENIZER.tokenise(text).token_ids) <= MAX_TOKENS
    else:
        with pytest.raises(InstructionError, match="empty"):
            TOKENIZER.tokenise(text)


@pytest.mark.parametrize("text", ["", " ", "\n\t ", "\u2003", "\0", "\0 \0", "\u200b", "\ufffd", "\x07"])
def test_a_text_without_a_readable_character_is_refused(text: str) -> None:
    with pytest.raises(InstructionError, match=r"empty.*give it some text"):
        TOKENIZER.tokenise(text)


@pytest.mark.parametrize("text", ["😀", "שלום עולם", "مرحبا", "漢字", "e\u0301", "a\ud800b", "\ud83d\ude00"])
def test_text_of_any_script_is_read(text: str) -> None:
    assert body(text)


def test_nul_parts_words_and_a_split_surrogate_pair_is_joined() -> None:
    assert body("the\0square") == plain_ids("the square")
    assert body("\ud83d\ude00 the") == plain_ids("😀 the")


def test_text_that_spells_a_special_token_is_plain_text() -> None:
    assert SEP not in body("the [SEP] root")
    assert CLS not in body("[CLS]")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("prose", "the square root of two is. " * 400_000),
        ("one word", "a" * 10_000_000),
        ("spaces inside", "the" + " " * 10_000_000 + "root"),
        ("spaces around", " " * 5_000_000 + "root" + "\n" * 5_000_000),
        ("NUL", "a" + "\0" * 10_000_000 + "b"),
        ("surrogates", "\ud800 a" * 3_000_000),
        ("emoji", "😀" * 2_500_000),
    ],
)
def test_ten_megabytes_take_milliseconds(name: str, text: str) -> None:
    tokenizer = InstructionTokenizer(tiny_tokenizer(), 512)
    tokenizer.tokenise("warm")
    fastest = float("inf")
    for _ in range(3):
        started = time.thread_time()  # processor time: the machine may be busy with something else
        result = tokenizer.tokenise(text)
        fastest = min(fastest, time.thread_time() - started)
    assert result.truncated or name == "spaces around"
    assert fastest < 0.05, f"{name}: {fastest * 1e3:.1f} ms"


def test_a_single_message_is_scored_like_its_text() -> None:
    assert (
        body([turn("user", "prove that")]) == body("prove that") == body(({"role": "user", "content": " prove that "},))
    )


def test_a_conversation_keeps_its_order_and_names_its_roles() -> None:
    messages = [turn("system", "the a"), turn("user", "prove that"), turn("assistant", "two")]
    assert body(messages) == plain_ids("system: the a user: prove that assistant: two")


def test_the_last_message_gets_the_budget_first() -> None:
    last = "two " * (BUDGET - 10)
    messages = [turn("user", "square " * 50), turn("user", last)]
    result = TOKENIZER.tokenise(messages)
    assert body(messages) == plain_ids("user: " + last)  # 8 tokens are left: fewer than a cut message is worth
    assert BUDGET - len(plain_ids("user: " + last)) < SMALLEST_CUT_TOKENS
    assert result.truncated
    assert result.total_tokens > len(result.token_ids)


def test_earlier_messages_share_what_is_left_newest_first() -> None:
    messages = [turn("user", "a a"), turn("assistant", "root " * 40), turn("user", "prove that")]
    left = BUDGET - 4
    expected = head_and_tail(plain_ids("root " * 40), left - 2)
    assert body(messages) == plain_ids("assistant: ") + expected + plain_ids("user: prove that")
    assert TOKENIZER.tokenise(messages).truncated, "the oldest message is gone, although it is short"


def test_a_last_message_that_is_too_long_leaves_nothing_for_others() -> None:
    messages = [turn("system", "a"), turn("user", "two " * 100)]
    assert body(messages) == plain_ids("user: " + "two " * (BUDGET - 2))


def test_blank_messages_do_not_count() -> None:
    tool_call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    assert body([turn("system", " "), tool_call, turn("user", "prove")]) == plain_ids("prove")
    result = TOKENIZER.tokenise([turn("user", "two"), turn("assistant", "\u200b")])
    assert not result.truncated
    assert result.token_ids[1:-1].tolist() == plain_ids("user: two")


def test_text_parts_are_joined_and_other_parts_are_named() -> None:
    content = [
        {"type": "text", "text": "prove"},
        {"type": "image_url", "image_url": {"url": "x"}},
        {"type": "text", "text": "that"},
        {"type": "input_audio", "input_audio": {}},
    ]
    result = TOKENIZER.tokenise([{"role": "user", "content": content}])
    assert result.token_ids[1:-1].tolist() == plain_ids("prove that")
    assert result.ignored_parts == ("image_url", "input_audio")


def test_a_long_conversation_is_read_from_its_end() -> None:
    """Only messages that can stay are tokenised."""
    messages = [turn("user", "the square root of two " * 200) for _ in range(1000)]
    started = time.thread_time()
    TOKENIZER.tokenise(messages)
    assert time.thread_time() - started < 0.05


@pytest.mark.parametrize(
    ("instruction", "says"),
    [
        (b"prove", "decode it first"),
        (bytearray(b"prove"), "decode it first"),
        (None, "not NoneType"),
        (7, "not int"),
        ({"role": "user", "content": "x"}, "wrap the message in a list"),
        ([], "no chat message"),
        (["prove"], "message 0 must be an object"),
        ([turn("user", "x"), turn("narrator", "y")], "message 1 has the role 'narrator'.*system.*user"),
        ([{"content": "x"}], "message 0 has the role None"),
        ([{"role": ["user"], "content": "x"}], "message 0 has the role"),
        ([{"role": "user", "content": 5}], "message 0: content must be"),
        ([{"role": "user", "content": b"x"}], "message 0: content must be"),
        ([{"role": "user", "content": ["x"]}], "must be an object with a type"),
        ([{"role": "user", "content": [{"type": "text"}]}], "needs a text"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "empty"),
        ([turn("user", ""), turn("user", "\n")], "empty"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(instruction: object, says: str) -> None:
    with pytest.raises(InstructionError, match=says):
        TOKENIZER.tokenise(instruction)  # type: ignore[arg-type]


def test_a_budget_without_room_for_text_is_refused() -> None:
    with pytest.raises(BundleError, match="no room for text"):
        InstructionTokenizer(tiny_tokenizer(), 2)


def test_a_broken_tokenizer_file_is_named(tmp_path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        InstructionTokenizer.from_file(path, 10)


def test_note_tokens_carry_special_tokens_only_on_request() -> None:
    assert TOKENIZER.text_token_ids(" prove that ", 8, special_tokens=False) == plain_ids("prove that")
    assert TOKENIZER.text_token_ids("prove that", 8, special_tokens=True) == [CLS, *plain_ids("prove that"), SEP]
    assert TOKENIZER.text_token_ids("", 8, special_tokens=False) == []
    assert len(TOKENIZER.text_token_ids("two " * 99, 8, special_tokens=False)) == 8
