"""Members of the teacher: small relevance heads on frozen states, and nearest neighbours."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor

from modelsat_engine.errors import DataError
from modelsat_engine.model.capability import TaskwiseEncoder
from modelsat_engine.model.relevance import RelevanceHead
from modelsat_engine.training.objectives import binary_cross_entropy, choice
from modelsat_engine.training.preparation import Prepared
from modelsat_engine.training.samples import BatchSampler, Candidates

HEAD_WIDTH = 256
HEAD_STEPS = 900
HEAD_RATE = 2e-3
HEAD_DECAY = 0.02
HEAD_BATCH = 64
HEAD_AVERAGE = 0.99
CHOICE = 0.3
NEIGHBOURS = 64
SHARPNESS = 10.0  # of a neighbour's weight, exp(SHARPNESS * cosine)
PRIOR_ANSWERS = 8.0
_FURTHEST = 8.0  # standard deviations; language models have a few states that are far out
_QUERIES_AT_ONCE = 1024


def standardised(states: np.ndarray, reference: np.ndarray) -> Tensor:
    """States ``[Q, H]`` in standard deviations of those of the reference questions."""
    rows = torch.from_numpy(states.astype(np.float32))
    known = rows[torch.from_numpy(reference)]
    return ((rows - known.mean(0)) / known.std(0).clamp(min=1e-3)).clamp(-_FURTHEST, _FURTHEST)


def head_logits(
    prepared: Prepared, states: Tensor, reference: np.ndarray, queries: np.ndarray, seeds: list[int]
) -> np.ndarray:
    """Mean logits of some relevance heads, each trained alone, from its own start and on its own samples.

    Args:
        states: float32 ``[Q, H]``, standardised; of every question of the data.
        reference: int64, questions to train on. queries: int64 ``[n]``, questions to predict.
        seeds: one head each.

    Returns:
        float64 ``[n, M]`` for the M seen models.
    """
    rows = prepared.split.seen_rows
    profiles = _evidence(prepared, prepared.answers.profiles(rows, [""] * len(rows)))
    asked = states[torch.from_numpy(queries)]
    total = np.zeros((len(queries), len(rows)))
    for seed in seeds:
        head = _train_head(prepared, states, reference, seed)
        with torch.inference_mode():
            total += (head(asked) @ profiles.T).double().numpy()
    return total / len(seeds)


def _train_head(prepared: Prepared, states: Tensor, reference: np.ndarray, seed: int) -> RelevanceHead:
    torch.manual_seed(seed)
    tasks = len(prepared.test.tasks)
    head = RelevanceHead(states.shape[1], HEAD_WIDTH, 2 + tasks).train()
    sampler = BatchSampler(
        dataclasses.replace(prepared.sampler.config, strength_weight=0.0, teacher_share=0.0),
        prepared.data,
        prepared.split.seen_rows,
        reference,
        prepared.answers,
        prepared.sampler.domains,
        prepared.sampler.task_domains,
        np.ones(len(prepared.data.questions)),
        [""] * len(prepared.data.model_keys),
        seed,
    )
    optimizer = torch.optim.AdamW(head.parameters(), lr=HEAD_RATE, weight_decay=HEAD_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, HEAD_RATE, total_steps=HEAD_STEPS)
    rng = np.random.default_rng(seed)
    average = {name: value.clone() for name, value in head.state_dict().items()}
    for step in range(HEAD_STEPS):
        batch = sampler.batch(0, step, rng.choice(reference, HEAD_BATCH))
        logits = head(states[torch.from_numpy(batch.questions)]) @ _evidence(prepared, batch.candidates).T
        truth = torch.from_numpy(batch.labels), torch.from_numpy(batch.known), torch.from_numpy(batch.weights)
        loss = binary_cross_entropy(logits, *truth) + CHOICE * choice(logits, *truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        decay = min(HEAD_AVERAGE, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in head.state_dict().items():
                average[name].lerp_(value, 1 - decay)
    head.load_state_dict(average)
    return head.eval()


def _evidence(prepared: Prepared, candidates: Candidates) -> Tensor:
    """Constant, overall strength and z_t of every task: ``[M, 2 + T]``."""
    encoder = prepared.network.capability
    if not isinstance(encoder, TaskwiseEncoder):
        raise DataError("a teacher needs a recipe with a taskwise capability encoder")
    with torch.no_grad():
        overall, tasks = encoder.task_evidence(torch.from_numpy(candidates.correct), torch.from_numpy(candidates.total))
    return torch.cat([torch.ones_like(overall)[:, None], overall[:, None], tasks / math.sqrt(tasks.shape[1])], 1)


def neighbour_logits(prepared: Prepared, states: np.ndarray, reference: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """What each seen model answered of the nearest reference questions, by cosine, in logits: float64 ``[n, M]``.

    A model's share there is shrunk toward its share of all reference questions by PRIOR_ANSWERS answers.
    """
    rows = prepared.split.seen_rows
    centred = states.astype(np.float32) - states[reference].astype(np.float32).mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True).clip(1e-9)
    known, right = (prepared.data.Y[np.ix_(rows, reference)].T >= 0), (prepared.data.Y[np.ix_(rows, reference)].T == 1)
    usual = right.sum(0) / known.sum(0).clip(1)  # [M]
    count = min(NEIGHBOURS, len(reference))
    shares = np.empty((len(queries), len(rows)))
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        part = slice(start, start + _QUERIES_AT_ONCE)
        cosine = unit[queries[part]] @ unit[reference].T
        nearest = np.argpartition(-cosine, count - 1, 1)[:, :count]  # [n, k]
        near = np.take_along_axis(cosine, nearest, 1)
        weight = np.exp(SHARPNESS * (near - near.max(1, keepdims=True)))
        prior = PRIOR_ANSWERS * weight.mean(1)[:, None]
        answered = np.einsum("nk,nkm->nm", weight, known[nearest])
        shares[part] = (np.einsum("nk,nkm->nm", weight, right[nearest]) + prior * usual) / (answered + prior)
    clipped = shares.clip(0.01, 0.99)
    logits: np.ndarray = np.log(clipped) - np.log1p(-clipped)
    return logits
