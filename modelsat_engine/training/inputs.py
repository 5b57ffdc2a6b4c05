"""From questions and candidates to the tensors that the network takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from modelsat_engine.aptitude.profile import CapabilityProfile
from modelsat_engine.aptitude.representation import capability_text
from modelsat_engine.aptitude.test import AptitudeTest
from modelsat_engine.errors import InstructionError
from modelsat_engine.model.network import ConnectedZoo, ModelSatNetwork
from modelsat_engine.runtime.instruction import InstructionTokenizer
from modelsat_engine.training.samples import Candidates


class NetworkInputs:
    """Holds the tokenised questions and turns candidates into rows.

    Args:
        tokens: token ids of every question of the data, int32 each; empty for questions that are not used.
        tokenizer: for expert notes and capability texts.
        test: the aptitude test, for capability texts.
        frozen_layers: trunk layers that training leaves alone, at most `inject_at`.
    """

    def __init__(
        self, tokens: Sequence[np.ndarray], tokenizer: InstructionTokenizer, test: AptitudeTest, frozen_layers: int
    ) -> None:
        self.tokens, self.tokenizer, self.test = tokens, tokenizer, test
        self.frozen_layers = frozen_layers
        self._states: dict[int, Tensor] = {}
        self._note_ids: dict[str, list[int]] = {}

    def instructions(self, questions: np.ndarray) -> tuple[Tensor, Tensor]:
        """Padded ids and mask, int64 ``[B, S]`` each, of the given columns."""
        return pad([self.tokens[question] for question in questions])

    def prefix(self, network: ModelSatNetwork, questions: np.ndarray) -> tuple[Tensor, Tensor]:
        """State of the instructions where inquiry rows join them, ``[B, S, D]``, and the mask, bool ``[B, S]``.

        The first `frozen_layers` layers are computed once for every question and kept in half precision.
        """
        ids, mask = self.instructions(questions)
        seen = mask > 0
        if not self.frozen_layers:
            return network.encode_instruction(ids, seen), seen
        for question in map(int, questions):
            if question not in self._states:  # one at a time: the state must not depend on the batch, or a resumed
                tokens = torch.from_numpy(self.tokens[question].astype(np.int64))[None]  # run would differ
                with torch.no_grad():
                    self._states[question] = network.trunk(tokens, None, layers=self.frozen_layers)[0].half()
        rows = torch.zeros(*ids.shape, network.config.trunk.hidden)
        for row, question in enumerate(questions):
            state = self._states[int(question)]
            rows[row, : len(state)] = state
        return network.trunk.run_layers(rows, seen, self.frozen_layers, network.config.inject_at), seen

    def connect(self, network: ModelSatNetwork, candidates: Candidates) -> ConnectedZoo:
        """Rows of the candidates by the network's own capability encoder."""
        if network.config.capability_encoder.kind == "text":
            return network.connect_text(*self._texts(candidates, network.config.views))
        ids, mask = pad([self._note(note) for note in candidates.notes])
        return network.connect_counts(
            torch.from_numpy(candidates.correct), torch.from_numpy(candidates.total), ids, mask
        )

    def _note(self, note: str) -> np.ndarray:
        if note not in self._note_ids:
            self._note_ids[note] = [] if not note.strip() else note_token_ids(self.tokenizer, note)
        return np.array(self._note_ids[note], np.int32)

    def _texts(self, candidates: Candidates, views: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng(0)
        rows = []
        for correct, total, note in zip(candidates.correct, candidates.total, candidates.notes, strict=True):
            right, asked = (dict(zip(self.test.task_names, map(int, n), strict=True)) for n in (correct, total))
            profile = CapabilityProfile("candidate", right, asked, notes=note)
            for _ in range(views):
                order = rng.permutation(len(self.test.tasks)).tolist()
                text = capability_text(profile, self.test, order)
                rows.append(self.tokenizer.tokenise(text).token_ids)
        ids, mask = pad(rows)
        shape = (len(candidates.notes), views, ids.shape[1])
        return ids.reshape(shape), mask.reshape(shape)


def note_token_ids(tokenizer: InstructionTokenizer, note: str) -> list[int]:
    """Token ids of an expert note, without [CLS] and [SEP]; empty when nothing can be read."""
    try:
        return [int(token) for token in tokenizer.tokenise(note).token_ids[1:-1]]
    except InstructionError:
        return []


def pad(rows: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Rows of token ids, at least one column -> ids and mask, int64 ``[N, S]``."""
    longest = max(1, max(len(row) for row in rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.from_numpy(row.astype(np.int64))
        mask[number, : len(row)] = 1
    return ids, mask
