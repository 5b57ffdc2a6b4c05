"""Turns an instruction (text or OpenAI chat messages) into the trunk's token ids, cut by one documented rule.

The cut rule, for a budget of ``max_tokens`` including the trunk's own [CLS] and [SEP]:

1. The last message gets the budget first; earlier messages, newest first, share what is left.
2. A message that does not fit keeps its head and its tail, half of the budget each (the odd token goes to the
   head). An earlier message of which fewer than ``SMALLEST_CUT_TOKENS`` could stay is dropped instead, and
   everything before a cut or dropped message is dropped too.
3. In a conversation of more than one message each message starts with its role ("user: "), which counts as part
   of it. One message alone is scored like the same plain text.

A huge text costs milliseconds: only a window at each end is tokenised. The first window is 8 characters for every
token of the half that it must fill; if that does not suffice (long runs of spaces, unbroken words) one of 24 is
tried, and what it holds is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelsat_engine.errors import BundleError, InstructionError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: One chat message: ``role`` and ``content``, as in the OpenAI chat completions format.
ChatMessage = Mapping[str, Any]
#: What the engine scores: a text, or the messages of one conversation.
Instruction = str | Sequence[ChatMessage]

SMALLEST_CUT_TOKENS = 16
_WINDOW_CHARACTERS_PER_TOKEN = (8, 24)
_ROLE_LABELS = {
    "system": "system: ",
    "developer": "system: ",
    "user": "user: ",
    "assistant": "assistant: ",
    "tool": "tool: ",
    "function": "tool: ",
}
_TEXT_PARTS = ("text", "input_text", "output_text")


@dataclass(frozen=True, eq=False)
class TokenisedInstruction:
    """An instruction as executors read it.

    Attributes:
        token_ids: int32 ``[S]``, with [CLS] and [SEP], 1 <= S <= max_tokens.
        total_tokens: length before the cut, with [CLS] and [SEP]; a lower bound when not all of a long text was
            tokenised.
        truncated: whether anything was cut or dropped.
        ignored_parts: kinds of message content that the router cannot read and left out ("image_url"), sorted.
    """

    token_ids: np.ndarray
    total_tokens: int
    truncated: bool
    ignored_parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Piece:
    ids: list[int]
    total_tokens: int
    cut: bool


class InstructionTokenizer:
    """The bundle's tokenizer with the cut rule of this module. Thread-safe.

    Args:
        tokenizer: a Hugging Face ``tokenizers`` tokenizer; its own truncation and padding are switched off, and
            text that spells a special token ("[SEP]") is read as plain text.
        max_tokens: longest result, with the special tokens.

    Raises:
        BundleError: ``max_tokens`` leaves no room for text.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self._prefix, self._suffix = _special_tokens_around(tokenizer)
        self.max_tokens = max_tokens
        self._budget = max_tokens - len(self._prefix) - len(self._suffix)
        if self._budget < 1:
            raise BundleError(f"max_instruction_tokens is {max_tokens}: no room for text; export the bundle again")
        self._labels = {role: self._encode(label)[0] for role, label in _ROLE_LABELS.items()}

    @classmethod
    def from_file(cls, path: str | Path, max_tokens: int) -> InstructionTokenizer:
        """Read a ``tokenizer.json``.

        Raises:
            BundleError: the file cannot be read as one.
        """
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise BundleError(f"cannot read the tokenizer {path}: {error}") from error
        return cls(tokenizer, max_tokens)

    def tokenise(self, instruction: Instruction) -> TokenisedInstruction:
        """Token ids of one instruction.

        NUL counts as a space; a surrogate without its partner becomes U+FFFD.

        Raises:
            InstructionError: neither text nor chat messages, an unknown role, or nothing to read.
        """
        turns, ignored = _turns_of(instruction)
        kept: list[list[int]] = []  # newest first
        left, total, truncated = self._budget, len(self._prefix) + len(self._suffix), False
        for role, text in reversed(turns):
            label = self._labels[role] if len(turns) > 1 else []
            if left <= len(label):
                truncated = True
                break
            piece = self._fit(text, left - len(label))
            if not piece.total_tokens:
                continue  # nothing but characters that the tokenizer drops
            total += len(label) + piece.total_tokens
            truncated = truncated or piece.cut
            if piece.cut and kept and left < SMALLEST_CUT_TOKENS:
                break
            kept.append(label + piece.ids)
            left -= len(kept[-1])
            if piece.cut:
                break
        if not kept:
            raise InstructionError(
                "the instruction is empty: it has no character the router can read; give it some text"
            )
        body = [token for turn in reversed(kept) for token in turn]
        token_ids = np.array(self._prefix + body + self._suffix, np.int32)  # [S]
        return TokenisedInstruction(token_ids, total, truncated, ignored)

    def text_token_ids(self, text: str, max_tokens: int, *, special_tokens: bool) -> list[int]:
        """Token ids of a text that is no instruction: an expert note, a capability representation.

        Args:
            max_tokens: longest result; a longer text keeps its head and tail.
            special_tokens: whether to add [CLS] and [SEP].

        Returns:
            The ids; without ``special_tokens``, none for a text without a readable character.
        """
        prefix, suffix = (self._prefix, self._suffix) if special_tokens else ([], [])
        text = text.strip()
        budget = max_tokens - len(prefix) - len(suffix)
        return prefix + (self._fit(text, budget).ids if text and budget > 0 else []) + suffix

    def _fit(self, text: str, budget: int) -> _Piece:
        """Head and tail of ``text``, ``budget`` tokens together; all of it when it fits. ``budget`` >= 1."""
        tail_tokens = budget // 2
        head_tokens = budget - tail_tokens
        head: list[int] = []
        tail: list[int] = []
        seen = 0
        for characters_per_token in _WINDOW_CHARACTERS_PER_TOKEN:
            window = characters_per_token * head_tokens
            if len(text) <= 2 * window:
                ids, _ = self._encode(text)
                if len(ids) <= budget:
                    return _Piece(ids, len(ids), cut=False)
                return _Piece(ids[:head_tokens] + ids[len(ids) - tail_tokens :], len(ids), cut=True)
            # The window may end inside a word, whose tokens would then differ from those of the whole text.
            head, head_words = self._encode(text[:window])
            tail, tail_words = self._encode(text[-window:])
            whole_head = sum(word != head_words[-1] for word in head_words)
            whole_tail = sum(word != tail_words[0] for word in tail_words)
            seen = whole_head + whole_tail
            if whole_head >= head_tokens and whole_tail >= tail_tokens:
                return _Piece(head[:head_tokens] + tail[len(tail) - tail_tokens :], seen, cut=True)
        ids = head[:head_tokens] + tail[max(0, len(tail) - tail_tokens) :]
        return _Piece(ids, max(seen, len(ids)), cut=True)

    def _encode(self, text: str) -> tuple[list[int], list[int | None]]:
        """Token ids without special tokens, and for each the number of its word."""
        encoding = self._tokenizer.encode(_readable(text), add_special_tokens=False)
        return encoding.ids, encoding.word_ids


def _readable(text: str) -> str:
    """``text`` without the code points that the tokenizer refuses; surrogates that form a pair are joined."""
    if "\0" in text:
        text = text.replace("\0", " ")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _turns_of(instruction: object) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """(role, text) of every message that is not blank, oldest first, and the kinds of content left out."""
    if isinstance(instruction, str):
        text = instruction.strip()
        return ([("user", text)] if text else []), ()
    if isinstance(instruction, (bytes, bytearray, memoryview)):
        raise InstructionError("an instruction must be str, not bytes; decode it first: data.decode('utf-8')")
    if not isinstance(instruction, Sequence):
        hint = "; wrap the message in a list" if isinstance(instruction, Mapping) else ""
        raise InstructionError(
            f"an instruction must be a str or a list of chat messages, not {type(instruction).__name__}{hint}"
        )
    if not instruction:
        raise InstructionError("the instruction is empty: the list has no chat message; give it at least one")
    turns: list[tuple[str, str]] = []
    ignored: set[str] = set()
    for index, message in enumerate(instruction):
        if not isinstance(message, Mapping):
            raise InstructionError(
                f"message {index} must be an object with role and content, not {type(message).__name__}"
            )
        role = message.get("role")
        if not isinstance(role, str) or role not in _ROLE_LABELS:
            raise InstructionError(f"message {index} has the role {role!r}; known roles: {', '.join(_ROLE_LABELS)}")
        text = _text_of(message.get("content"), index, ignored).strip()
        if text:
            turns.append((role, text))
    return turns, tuple(sorted(ignored))


def _text_of(content: object, index: int, ignored: set[str]) -> str:
    """The text of a message: a string, None (a tool call), or the text parts of a list of content parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence) or isinstance(content, (bytes, bytearray)):
        raise InstructionError(
            f"message {index}: content must be a str or a list of content parts, not {type(content).__name__}"
        )
    texts: list[str] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if not isinstance(kind, str):
            raise InstructionError(f"message {index}: every content part must be an object with a type")
        if kind not in _TEXT_PARTS:
            ignored.add(kind)
            continue
        text = part.get("text")
        if not isinstance(text, str):
            raise InstructionError(f"message {index}: a content part of type {kind!r} needs a text that is a str")
        texts.append(text)
    return "\n".join(texts)


def _special_tokens_around(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts before and after a text."""
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    full = tokenizer.encode("a", add_special_tokens=True).ids
    for start in range(len(full) - len(bare) + 1):
        if bare and full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    raise BundleError("the tokenizer cannot tokenise the letter 'a'; export the bundle again")
