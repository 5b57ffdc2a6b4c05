"""How a batch becomes passes of one engine: groups of instructions of like length, padded to a bucket."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from modelsat_engine.export.tensorrt.profiles import Bucket, Profile, token_edges
from modelsat_engine.runtime.executors import PackedBatch


def groups_of(lengths: np.ndarray, profiles: Sequence[Profile]) -> Iterator[np.ndarray]:
    """Split a batch into what one pass takes each.

    Instructions that would be padded to the same length go together, so a short one never waits for a long one's
    padding, and how an instruction is padded does not depend on the others.

    Args:
        lengths: int ``[B]``, tokens of each instruction, within the profiles.

    Yields:
        Indices into the batch, int64 ``[b]``, b up to what the largest profile takes; each index once.
    """
    edges = np.array(token_edges(profiles[-1].tokens.largest))
    padded = np.searchsorted(edges, lengths)  # [B], which edge holds it
    most = profiles[-1].requests.largest
    for edge in np.unique(padded):
        members = np.flatnonzero(padded == edge)
        for start in range(0, len(members), most):
            yield members[start : start + most]


def write_padded(batch: PackedBatch, members: np.ndarray, bucket: Bucket, ids: np.ndarray, mask: np.ndarray) -> None:
    """Lay some instructions of a batch out as the graph reads them.

    Rows beyond the members are instructions of one token 0: a row without a token has no attention to normalise.

    Args:
        members: indices into the batch, at most ``bucket.requests``.
        ids, mask: int64 ``[bucket.requests, bucket.tokens]``, overwritten.
    """
    ids[:] = 0
    mask[:] = 0
    mask[len(members) :, 0] = 1
    for row, member in enumerate(members):
        first, last = batch.cu_seqlens[member], batch.cu_seqlens[member + 1]
        ids[row, : last - first] = batch.token_ids[first:last]
        mask[row, : last - first] = 1
