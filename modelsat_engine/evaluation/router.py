"""Asks a bundle what it thinks of benchmark questions: probabilities through the Engine, embeddings of its trunk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from modelsat_engine.aptitude.profile import CapabilityProfile
from modelsat_engine.errors import BundleError
from modelsat_engine.export.bundle import Bundle

TEXTS_PER_CALL = 256
TOKENS_PER_CALL = 1024  # one activation fits the cache; larger ones cost page faults

Share = Callable[[float], object]


def router_probabilities(
    bundle: str | Path | Bundle | None,
    profiles: Sequence[CapabilityProfile],
    texts: Sequence[str],
    progress: Share | None = None,
    executor: str = "auto",
) -> np.ndarray:
    """P(Yes) of every model for every text, exactly as a gateway would get it.

    Args:
        bundle: the router; None is the shipped one.
        profiles: M models, with different names.
        texts: N instructions.
        progress: called with the share done, 0 to 1.
        executor: what runs the router, as :meth:`Engine.load` takes it.

    Returns:
        float32 ``[N, M]``.

    Raises:
        BundleError, ProfileError, CandidateError, ExecutorError: from the Engine.
    """
    from modelsat_engine.runtime.engine import Engine

    P = np.empty((len(texts), len(profiles)), np.float32)  # [N, M]
    by_length = np.argsort([len(text) for text in texts], kind="stable")  # like lengths share a batch
    with Engine.load(bundle, zoo=profiles, executor=executor, mode="throughput") as engine:
        for start in range(0, len(texts), TEXTS_PER_CALL):
            part = by_length[start : start + TEXTS_PER_CALL]
            P[part] = engine.score([texts[index] for index in part])
            if progress is not None:
                progress(min(1.0, (start + len(part)) / len(texts)))
    return P


def instruction_embeddings(
    bundle: str | Path | Bundle | None,
    texts: Sequence[str],
    threads: int | None = None,
    progress: Share | None = None,
) -> np.ndarray:
    """The trunk's mean-pooled state for every text, which the nearest-neighbour baselines search in.

    Args:
        threads: threads inside one operator; None is one for every CPU this process may use.
        progress: called with the share done, 0 to 1.

    Returns:
        float32 ``[N, D]``.

    Raises:
        BundleError: router.onnx has no output ``instruction_embedding``.
    """
    from modelsat_engine.runtime.instruction import InstructionTokenizer
    from modelsat_engine.runtime.onnx_session import open_session

    bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
    session = open_session(bundle.file("router.onnx"), threads or usable_cpus())
    if "instruction_embedding" not in {value.name for value in session.get_outputs()}:
        raise BundleError(f"{bundle.file('router.onnx')} has no output instruction_embedding; export the bundle again")
    # The graph wants a candidate; this one is not looked at, for the instruction sees no candidate.
    nobody = {
        value.name: np.zeros([1, *(size if isinstance(size, int) else 1 for size in value.shape[1:])], np.float32)
        for value in session.get_inputs()
        if value.name not in ("input_ids", "attention_mask")
    }
    tokenizer = InstructionTokenizer.from_file(
        bundle.file("tokenizer.json"), int(bundle.config["tokenizer"]["max_instruction_tokens"])
    )
    tokens = [tokenizer.tokenise(text).token_ids for text in texts]
    embedding = np.empty((len(texts), int(bundle.config["trunk"]["hidden"])), np.float32)  # [N, D]
    done = 0
    for members in _batches([len(ids) for ids in tokens]):
        mask = np.arange(max(len(tokens[i]) for i in members)) < np.array([[len(tokens[i])] for i in members])
        ids = np.zeros(mask.shape, np.int64)  # [b, s]
        ids[mask] = np.concatenate([tokens[i] for i in members])
        feeds = {"input_ids": ids, "attention_mask": mask.astype(np.int64), **nobody}
        embedding[members] = session.run(["instruction_embedding"], feeds)[0]
        done += len(members)
        if progress is not None:
            progress(done / len(texts))
    return embedding


def executor_in_use(bundle: Bundle, executor: str = "auto") -> str:
    """The executor that this name means for the bundle on this machine; ``auto`` is the best that can be used."""
    from modelsat_engine.runtime.executors import executors_for

    if executor != "auto":
        return executor
    return next((name for name, reason in executors_for(bundle).items() if reason is None), executor)


def usable_cpus() -> int:
    """CPUs that this process may run on, which a container or taskset may have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices in ascending length, at most TOKENS_PER_CALL tokens a batch with its padding."""
    members: list[int] = []
    for index in np.argsort(lengths, kind="stable").tolist():
        if members and (len(members) + 1) * lengths[index] > TOKENS_PER_CALL:
            yield members
            members = []
        members.append(index)
    if members:
        yield members
