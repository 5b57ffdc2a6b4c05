"""What a frozen language model makes of an instruction: the states that a teacher's heads read."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap

from modelsat_engine.errors import DataError, MissingExtraError

MAX_TOKENS = 320
#: Asked at the end of every instruction: the last token's state is the model about to answer.
SUFFIX = "\n\nAnswer:"
#: Depths of the two states, in fifteenths of the layers: the mean of all tokens, and the last token.
MIDDLE, LATE = 8, 12
_TOKENS_AT_ONCE = 2500
_TEXTS_AT_ONCE = 32

Share = Callable[[float], object]


def language_model_states(
    model_file: Path, texts: Sequence[str], cache: Path, progress: Share = lambda share: None
) -> np.ndarray:
    """States of a causal language model, in bfloat16 arithmetic; a killed run goes on where it stopped.

    Args:
        model_file: a .gguf file with its tokenizer.
        texts: N instructions. One of more than MAX_TOKENS tokens keeps its head and its tail.
        cache: folder in which finished states are kept, in a file named after model and texts.
        progress: called with the share done.

    Returns:
        float16 ``[N, 2, H]``: the mean over the tokens after MIDDLE fifteenths of the layers, and the last token after
        LATE fifteenths.

    Raises:
        DataError: the file cannot be read as a language model. MissingExtraError: transformers or gguf is missing.
    """
    tokenizer, model = _load(model_file)
    suffix = tokenizer(SUFFIX, add_special_tokens=False).input_ids
    tokens = [_cut(tokenizer(text, add_special_tokens=False).input_ids) + suffix for text in texts]
    depth = model.config.num_hidden_layers
    middle, late = round(MIDDLE * depth / 15), round(LATE * depth / 15)
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f"states-{_digest(model_file, tokens)}.npy"
    shape = (len(texts), 2, model.config.hidden_size)
    if path.exists():
        states = open_memmap(path, "r+")
        if states.shape != shape:
            raise DataError(f"{path} does not hold the states of these texts; delete it")
    else:
        states = open_memmap(path, "w+", np.float16, shape)
        states[:] = np.nan
    todo = [index for index in np.argsort([len(row) for row in tokens], kind="stable") if np.isnan(states[index, 0, 0])]
    done = len(texts) - len(todo)
    while todo:
        longest = len(tokens[todo[min(8, len(todo) - 1)]])
        count = max(1, min(_TEXTS_AT_ONCE, _TOKENS_AT_ONCE // longest))
        chosen, todo = todo[:count], todo[count:]
        states[chosen] = _states_of(model, [tokens[index] for index in chosen], middle, late)
        done += len(chosen)
        progress(done / len(texts))
    states.flush()
    return np.asarray(states)


def _states_of(model: Any, rows: list[list[int]], middle: int, late: int) -> np.ndarray:
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        mask[number, : len(row)] = 1
    with torch.inference_mode():
        hidden = model(ids, attention_mask=mask, output_hidden_states=True).hidden_states
        share = (mask / mask.sum(1, keepdim=True)).float()
        mean = torch.einsum("bs,bsd->bd", share, hidden[middle].float())
        last = hidden[late][torch.arange(len(rows)), mask.sum(1) - 1].float()
    return torch.stack([mean, last], 1).half().numpy()


def _load(model_file: Path) -> tuple[Any, Any]:
    """The tokenizer, and the model without its vocabulary head."""
    try:
        import gguf  # noqa: F401  # transformers says only late that it is missing
        from transformers import AutoModel, AutoTokenizer
    except ImportError:
        raise MissingExtraError("a teacher", "teach") from None
    if not model_file.is_file():
        raise DataError(f"{model_file} is no file; name the .gguf file of a language model")
    folder, name = str(model_file.parent), model_file.name
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # the library has progress bars of its own, in logs too
            tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name, local_files_only=True)
            model = AutoModel.from_pretrained(folder, gguf_file=name, dtype=torch.float32, local_files_only=True)
    except Exception as error:  # the library raises whatever its parsers do
        raise DataError(f"{model_file} cannot be read as a language model: {error}") from error
    return tokenizer, model.to(torch.bfloat16).eval()


def _cut(ids: list[int]) -> list[int]:
    return ids if len(ids) <= MAX_TOKENS else ids[: MAX_TOKENS // 2] + ids[-(MAX_TOKENS // 2) :]


def _digest(model_file: Path, tokens: list[list[int]]) -> str:
    digest = hashlib.sha256(f"{model_file.name} {model_file.stat().st_size} {MIDDLE} {LATE}".encode())
    for row in tokens:
        digest.update(np.array([len(row), *row], np.int64).tobytes())
    return digest.hexdigest()[:16]
