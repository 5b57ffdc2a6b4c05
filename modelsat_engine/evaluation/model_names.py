"""What a model's name tells: which rows are the same model, and a few facts worth an expert note."""

from __future__ import annotations

import re

# Rows that answer alike because one is built from the other; a split that parts them would leak. The first
# column is matched against the normalised name. All have a residual correlation above 0.6 (after taking out
# question difficulty and model strength) or carry one name with different version numbers.
_NEAR_DUPLICATES = (
    (re.compile(r"visflamcat|gutenlaserpi|layleleflampi"), "flam merges"),
    (re.compile(r"llama-3\.1-8b-lexi-uncensored"), "llama-3.1-8b-lexi-uncensored"),
    (re.compile(r"signtensors"), "mistral-7b-v0.1-signtensors"),
    (re.compile(r"trinity-2-codestral"), "trinity-2-codestral-22b"),
    (re.compile(r"neural-chat-7b-v3"), "neural-chat-7b-v3"),
    (re.compile(r"gpt-4o-20\d\d"), "gpt-4o"),
)

_TUNED = re.compile(
    r"instruct|chat|\bit\b|\bsft\b|rlhf|orpo|dpo|guanaco|magpie|uncensored|hermes|synthia|\btess\b|gpt-4o|gemini"
    r"|command-r|mathstral|jamba-1\.5"
)
_BASE = re.compile(
    r"llama-[23](\.\d)?-\d+b|mi[sx]tral-[\dx]+b-v[\d.]+(-signtensors.*)?|qwen[\d.]+-\d+b|yi-\d+b|yarn-.*"
)


def normalised_name(name: str) -> str:
    """A clean name without what differs between sources: organisation, provider, case, ``_``, ``-hf``, ``Meta-``."""
    short = re.sub(r"[@#].*$", "", name).rsplit("/", 1)[-1].lower().replace("_", ".")
    return re.sub(r"^meta-|-hf$", "", short)


def family_of(name: str) -> str:
    """The group of rows that must stay on one side of a split: one model, its protocols, its near-duplicates."""
    short = normalised_name(name)
    for pattern, family in _NEAR_DUPLICATES:
        if pattern.search(short):
            return family
    return short


def expert_notes(model_key: str) -> str:
    """Expert notes for a row of the outcome data, from its key alone; "" when the key tells nothing.

    Two facts: how its answers were obtained (a model scored by log-likelihood shows other strengths than one
    that reasons first), and whether it is instruction-tuned (which a test of knowledge cannot see).
    """
    protocol, _, name = model_key.partition("/")
    short = normalised_name(name)
    notes = []
    if _TUNED.search(short):
        notes.append("instruction-tuned")
    elif _BASE.fullmatch(short):
        notes.append("base model")
    if protocol == "mmlu_pro_cot":
        notes.append("answers with chain of thought")
    elif protocol == "olb2" and not short.startswith("gpt-4o"):  # those rows come from their authors' own runs
        notes.append("scored by log-likelihood")
    return "; ".join(notes)
