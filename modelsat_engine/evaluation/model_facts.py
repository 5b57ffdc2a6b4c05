"""Public facts about the models of the outcome data: how large they are, and when they were released.

Only what their makers published; a model whose month is not known for certain has none, and a closed model has no
size. Sizes stand in most names and are read from there; the table holds those that do not.
"""

from __future__ import annotations

import re

from modelsat_engine.evaluation.model_names import normalised_name

_SIZE = re.compile(r"(?:^|[-.])(?:(\d+)x)?(\d+(?:\.\d+)?)([bm])(?=$|[-.])")

# Billions of parameters, all experts counted, of models whose names do not say.
_BILLIONS = {
    "deepseek-coder-v2": 236.0,
    "phi-3-mini-4k-instruct": 3.8,
    "c4ai-command-r-v01": 35.0,
    "jamba-1.5-large": 398.0,
    "solar-pro-preview-instruct": 22.0,
    "neural-chat-7b-v3-1": 7.0,
    "superheart": 8.0,
    "visflamcat": 7.0,
    "layleleflampi": 7.0,
    "gutenlaserpi": 7.0,
    "virtuoso-lite-tensopolis-v2": 10.0,
}

# Year and month of the public release. Merges and fine-tunes by single persons are left out where only the month of a
# leaderboard entry is known.
_RELEASED = {
    "llama-2-7b": "2023-07",
    "llama-2-13b": "2023-07",
    "llama-2-70b": "2023-07",
    "llama-2-13b-chat": "2023-07",
    "yarn-llama-2-13b-128k": "2023-08",
    "mistral-7b-v0.1": "2023-09",
    "mistral-7b-instruct-v0.1": "2023-09",
    "yi-6b": "2023-11",
    "yi-34b": "2023-11",
    "yi-6b-chat": "2023-11",
    "neural-chat-7b-v3-1": "2023-11",
    "deepseek-llm-67b-chat": "2023-11",
    "mixtral-8x7b-v0.1": "2023-12",
    "mixtral-8x7b-instruct-v0.1": "2023-12",
    "mistral-7b-instruct-v0.2": "2023-12",
    "qwen1.5-7b-chat": "2024-02",
    "gemma-2b-it": "2024-02",
    "c4ai-command-r-v01": "2024-03",
    "mistral-7b-v0.2": "2024-03",
    "llama-3-8b": "2024-04",
    "llama-3-70b": "2024-04",
    "phi-3-mini-4k-instruct": "2024-04",
    "qwen1.5-110b": "2024-04",
    "gpt-4o-2024-05-13": "2024-05",
    "qwen2-72b-instruct": "2024-06",
    "deepseek-coder-v2": "2024-06",
    "gemma-2-27b-it": "2024-06",
    "llama-3.1-8b-instruct": "2024-07",
    "llama-3.1-70b": "2024-07",
    "llama-3.1-70b-instruct": "2024-07",
    "mathstral-7b": "2024-07",
    "hermes-3-llama-3.1-70b": "2024-08",
    "jamba-1.5-large": "2024-08",
    "gpt-4o-2024-08-06": "2024-08",
    "qwen2.5-7b-instruct": "2024-09",
    "solar-pro-preview-instruct": "2024-09",
    "gemini-1.5-flash-002": "2024-09",
    "gemini-1.5-pro-002": "2024-09",
    "llama-3.1-nemotron-70b-instruct": "2024-10",
}


def billions_of_parameters(name: str) -> float | None:
    """Parameters in billions, from the table or the name (``8x7b`` counts 56); None when neither tells."""
    short = normalised_name(name)
    if short in _BILLIONS:
        return _BILLIONS[short]
    found = _SIZE.search(short)
    if found is None:
        return None
    experts, size, unit = found.groups()
    return int(experts or 1) * float(size) * (1.0 if unit == "b" else 1e-3)


def released(name: str) -> str | None:
    """Month of the public release as ``2024-07``; None when it is not in the table."""
    return _RELEASED.get(normalised_name(name))
