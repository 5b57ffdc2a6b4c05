"""What an answer says: the option's letter, the number or the text it settles on, and whether that is right.

Models wrap the answer in thoughts, Markdown, LaTeX and politeness. The rules here go from what cannot be meant
otherwise to what is likely, and give up rather than guess: an answer that names two options counts as not parsed.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

from modelsat_engine.aptitude.questions import LETTERS, Question

# The end of a long answer is where it settles; more would only cost time.
TAIL_CHARACTERS = 20_000

_END_OF_THOUGHT = re.compile(
    r"</\s*(?:think|thinking|thought|reasoning|analysis)\s*>|<\|channel\|>\s*final\s*<\|message\|>|◁/think▷", re.I
)
_THOUGHT = re.compile(r"<\s*(?:think|thinking|thought|reasoning)\s*>|<\|channel\|>\s*analysis|◁think▷", re.I)
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
_WRAPPER = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|operatorname|rm|bf)\s*\{([^{}]*)\}")
_TAG = re.compile(r"</?\s*(?:answer|final_answer|final|response|output)\s*>", re.I)
# Every repetition has a bound, so that no answer takes longer than its length deserves
_OPEN = r"[\s'\[({<]{0,4}"
_CLOSE = r"[\s'\])}>]{0,4}"
_GAP = r"[\s:]{0,3}"
_STATED = (
    rf"(?:answer|choice|option|selection|conclusion)\b{_GAP}"
    rf"(?:(?:to|for) (?:this|the) (?:question|problem))?{_GAP}"
    rf"(?:is|are|was|be|would be|should be|must be|has to be|will be|:|=|->|→|-){_GAP}"
    rf"(?:therefore|thus|most likely|likely|probably|clearly|simply|indeed|definitely)?{_GAP}"
    rf"(?:the )?(?:letter|option|choice|answer)?{_GAP}"
)
_CHOSEN = rf"\b(?:choose|chose|pick|select|go with|opt for) (?:the )?(?:letter|option|choice|answer)?{_GAP}"
# What may follow a bare letter so that "A" and "I" are letters and not words
_REASON = r"(?:because|since|as|due|which|for|given|based|with|so|and|or|is)\b"
_AFTER = rf"(?=$|[.,;:!?)\]}}\n>'’-]|\s(?:[-–—(]|{_REASON}|\s|$))"
_NUMBER = re.compile(r"[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?(?:\s*/\s*\d+)?")
_FINAL = re.compile(r"(?:####|\b(?:final\s+)?(?:answer|result)\b[\s*_`]*(?:is|are|would\s+be|:|=)[\s*_`:]*)(.+)", re.I)


@dataclass(frozen=True)
class Grade:
    """What was read from an answer.

    Attributes:
        parsed: the letter, number or text that the answer settles on; None when none could be read.
        correct: whether it is the right one; an answer that was not parsed is wrong.
    """

    parsed: str | None
    correct: bool


def grade(question: Question, answer: str) -> Grade:
    """Read the answer to a question and compare it with the right one."""
    text = final_part(answer)
    if question.options:
        letter = extract_letter(text, question.options)
        return Grade(letter, letter == question.answer)
    wanted = as_number(question.answer)
    if wanted is not None:
        value = extract_number(text)
        return Grade(value, value is not None and as_number(value) == wanted)
    statement = extract_text(text, question.answer)
    return Grade(statement, statement is not None and _same(statement, question.answer))


def final_part(answer: str) -> str:
    """The answer after its thoughts, in Unicode NFKC; "" while it still thinks (a cut answer of a reasoning model)."""
    text = unicodedata.normalize("NFKC", answer[-TAIL_CHARACTERS:])
    ends = list(_END_OF_THOUGHT.finditer(text))
    if ends:
        text = text[ends[-1].end() :]
    elif _THOUGHT.match(answer.lstrip()[:40]):
        return ""
    return _TAG.sub("\n", text).strip()


def extract_letter(text: str, options: tuple[str, ...]) -> str | None:
    """The letter of the one option that a text settles on, or None.

    Args:
        text: an answer without its thoughts, see :func:`final_part`.
        options: their texts, for answers that repeat one in place of its letter.
    """
    letters = LETTERS[: len(options)]
    plain = _undecorated(text)
    lone = re.compile(
        rf"[#>-]{{0,6}}{_OPEN}(?:(?:the )?(?:final |correct )?(?:answer|option|choice)\b{_GAP}(?:is\b)?)?{_OPEN}"
        rf"([{letters}]){_CLOSE}[.:;,!]?{_CLOSE}",
        re.I,
    )
    if whole := lone.fullmatch(plain):
        return whole[1].upper()
    boxes = _BOXED.findall(text)
    if boxes:
        box = _undecorated(boxes[-1])
        if (inside := lone.fullmatch(box)) or (inside := re.match(rf"{_OPEN}([{letters}])[.):]", box)):
            return inside[1].upper()
        return _option_said(boxes[-1], options)
    stated = _last_stated(plain, letters)
    if stated is not None:
        return stated or None
    lines = plain.splitlines()
    for line in (lines[-1:] + lines[:1]) if lines else ():
        if alone := lone.fullmatch(line):
            return alone[1].upper()
    labelled = re.compile(rf"[\s#>-]{{0,4}}\(?([{letters}])[).:\]](?:\s|$)")
    if labels := [match[1] for line in lines if (match := labelled.match(line))]:
        return labels[0] if len(set(labels)) == 1 else None  # several: the options are listed again
    if bold := re.findall(rf"\*\*\s?\(?([{letters}])\s?(?:[).:][^*\n]{{0,500}})?\*\*", text):
        return str(bold[-1]) if len(set(bold)) == 1 else None
    if said := _option_said(text, options) or (_option_said(lines[-1], options) if lines else None):
        return said
    named = re.findall(rf"\(([{letters}])\)|\b[Oo]ption ([{letters}])\b", plain)
    mentioned = {bracketed or bare for bracketed, bare in named}
    return mentioned.pop() if len(mentioned) == 1 else None


def _undecorated(text: str) -> str:
    """The text without emphasis, quotes, LaTeX and repeated brackets and spaces, line by line."""
    text = re.sub(r'[*_`$"“”\\]+', "", _WRAPPER.sub(r"\1", text))
    text = re.sub(r"([\[({<])[\[({<\s]+", r"\1", text)
    text = re.sub(r"([\])}>])[\])}>]+", r"\1", text)
    return re.sub(r"\s*\n\s*", "\n", re.sub(r"[^\S\n]+", " ", text)).strip()


def _last_stated(text: str, letters: str) -> str | None:
    """The letter of the last "the answer is X"; "" when that names two; None when nothing is stated."""
    bracketed = rf"[(\[{{<]'?([{letters}])'?[)\]}}>]"
    bare = rf"'?([{letters}]){_AFTER}"
    claim = re.compile(rf"(?:{_STATED}|{_CHOSEN})(?:{bracketed}|{bare})", re.I)
    right = re.compile(rf"(?:\(([{letters}])\)|\b([{letters}])\b) is (?:the )?(?:correct|right|best|answer)\b")
    another = re.compile(rf"[)\]}}>'.]?\s?(?:and|or|/|&)\s?(?:option )?[(\[]?([{letters}])(?![\w'])(?! [a-z])")
    found = [(match.end(), str(match[1] or match[2])) for match in right.finditer(text)]
    for match in claim.finditer(text):
        if match[2] and not match[2].isupper():
            continue  # "the answer is a bit longer": a bare letter counts in capitals only
        letter = (match[1] or match[2]).upper()
        hedge = another.match(text, match.end())
        found.append((match.end(), "" if hedge and hedge[1] != letter else letter))
    return max(found)[1] if found else None


def _option_said(text: str, options: tuple[str, ...]) -> str | None:
    """The letter of the option whose text this is, or that it states as "the answer is ..."."""
    candidates = [text]
    if (final := _FINAL.findall(text)) and len(text) < TAIL_CHARACTERS:
        candidates.append(final[-1])
    plain = [_bare(option) for option in options]
    for candidate in candidates:
        said = _bare(candidate)
        if said and plain.count(said) == 1:
            return LETTERS[plain.index(said)]
    return None


def extract_number(text: str) -> str | None:
    """The number that a text settles on, as written: boxed, stated as the answer, or else the last one."""
    for part in [*_BOXED.findall(text)[-1:], *_FINAL.findall(text)[-1:]]:
        numbers = _numbers(part)
        if numbers:
            return numbers[0]
    numbers = _numbers(text)
    return numbers[-1] if numbers else None


def extract_text(text: str, wanted: str) -> str | None:
    """The statement that a text settles on: boxed, stated as the answer, or all of it when it is short."""
    if boxes := _BOXED.findall(text):
        return str(boxes[-1]).strip()
    if _same(text, wanted):
        return text.strip()
    if final := _FINAL.findall(text):
        return str(final[-1]).strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines and len(lines[-1]) <= max(80, 2 * len(wanted)) else None


def as_number(text: str) -> Fraction | None:
    """The exact value of a text that is one number: 1,234.50, $3, 25 %, 1/2, \\frac{1}{2}, -2e3; None for others."""
    bare = unicodedata.normalize("NFKC", text).strip().strip("$*_`").strip()
    bare = re.sub(r"\\d?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"\1/\2", bare)
    bare = re.sub(r"^(?:\\\(|\\\[|[$€£])\s*|\s*(?:\\\)|\\\]|\\?%|[.°])$", "", bare).replace("−", "-").replace(" ", "")
    if not bare or len(bare) > 60 or not _NUMBER.fullmatch(bare):
        return None
    exponent = re.search(r"[eE]([-+]?\d+)", bare)
    if exponent and abs(int(exponent[1])) > 400:  # 1e999999999 would fill the memory
        return None
    above, _, below = bare.replace(",", "").partition("/")
    try:
        return Fraction(above) / Fraction(below or "1")
    except (ValueError, ZeroDivisionError):
        return None


def _numbers(text: str) -> list[str]:
    text = re.sub(r"\\d?frac\s*\{(-?\d+)\}\s*\{(-?\d+)\}", r"\1/\2", text.replace("−", "-"))
    text = text.replace("{,}", ",").replace("\\,", "").replace("\\!", "")
    return [match[0].strip() for match in _NUMBER.finditer(text) if any(character.isdigit() for character in match[0])]


def _same(said: str, wanted: str) -> bool:
    number, other = as_number(said), as_number(wanted)
    if number is not None and other is not None:
        return number == other
    return bool(_bare(said)) and _bare(said) == _bare(wanted)


def _bare(text: str) -> str:
    """A text without case, decoration and the punctuation around it, for comparisons."""
    plain = unicodedata.normalize("NFKC", _WRAPPER.sub(r"\1", text)).casefold()
    plain = " ".join(re.sub(r"[*_`$\\]", " ", plain).split())
    return plain.strip(" .,:;!?\"'()[]{}“”‘’")
