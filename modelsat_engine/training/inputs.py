"""From questions and candidates to the tensors that the network takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from modelsat_engine.aptitude.profile import CapabilityProfile
from modelsat_engine.aptitude.test import AptitudeTest
from modelsat_engine.model.network import ConnectedZoo, ModelSatNetwork
from modelsat_engine.runtime.capability_inputs import TextInputs
from modelsat_engine.runtime.instruction import InstructionTokenizer
from modelsat_engine.training.samples import Candidates, Forms

#: An expert note is cut to this many tokens, in training as in a deployed router.
MAX_NOTE_TOKENS = 32


class NetworkInputs:
    """Holds the tokenised questions and turns candidates into rows.

    Args:
        tokens: token ids of every question of the data, int32 each; empty for questions that are not used.
        tokenizer: for expert notes and capability texts.
        test: the aptitude test, for capability texts.
        frozen_layers: trunk layers that training leaves alone, at most `inject_at`.
        bare: token ids of the questions that have lettered options, without them, by column.
        shuffled: (column, order) -> token ids of the question with its lettered options in that order.
    """

    def __init__(
        self,
        tokens: Sequence[np.ndarray],
        tokenizer: InstructionTokenizer,
        test: AptitudeTest,
        frozen_layers: int,
        bare: Mapping[int, np.ndarray] | None = None,
        shuffled: Callable[[int, int], np.ndarray] | None = None,
    ) -> None:
        self.tokens, self.tokenizer, self.test = tokens, tokenizer, test
        self.frozen_layers, self.bare, self.shuffled = frozen_layers, bare or {}, shuffled
        self._states: dict[tuple[int, bool, int], Tensor] = {}
        self._note_ids: dict[str, np.ndarray] = {}

    def instructions(self, questions: np.ndarray, forms: Forms | None = None) -> tuple[Tensor, Tensor]:
        """Padded ids and mask, int64 ``[B, S]`` each, of the given columns, as written or in other forms."""
        return pad([self._tokens(*key) for key in self._keys(questions, forms)])

    def _keys(self, questions: np.ndarray, forms: Forms | None) -> list[tuple[int, bool, int]]:
        """Column, whether without options, and the order of the options (0: as written) of every question."""
        if forms is None:
            return [(int(q), False, 0) for q in questions]
        return [
            (int(q), bool(bare) and int(q) in self.bare, int(order) if self.shuffled is not None else 0)
            for q, bare, order in zip(questions, forms.bare, forms.orders, strict=True)
        ]

    def _tokens(self, question: int, bare: bool, order: int) -> np.ndarray:
        if bare:
            return self.bare[question]
        return self.shuffled(question, order) if order and self.shuffled is not None else self.tokens[question]

    def prefix(
        self, network: ModelSatNetwork, questions: np.ndarray, forms: Forms | None = None
    ) -> tuple[Tensor, Tensor]:
        """State of the instructions where inquiry rows join them, ``[B, S, D]``, and the mask, bool ``[B, S]``.

        The first `frozen_layers` layers are computed once for every text that can come again, and kept in half
        precision.
        """
        keys = self._keys(questions, forms)
        ids, mask = pad([self._tokens(*key) for key in keys])
        seen = mask > 0
        if not self.frozen_layers:
            return network.encode_instruction(ids, seen), seen
        if any(order for _, _, order in keys):
            with torch.no_grad():
                rows = network.trunk(ids, seen, layers=self.frozen_layers)
            return network.trunk.run_layers(rows, seen, self.frozen_layers, network.config.inject_at), seen
        for key in keys:
            if key not in self._states:  # one at a time: the state must not depend on the batch, or a resumed
                tokens = torch.from_numpy(self._tokens(*key).astype(np.int64))[None]  # run would differ
                with torch.no_grad():
                    self._states[key] = network.trunk(tokens, None, layers=self.frozen_layers)[0].half()
        rows = torch.zeros(*ids.shape, network.config.trunk.hidden)
        for row, key in enumerate(keys):
            state = self._states[key]
            rows[row, : len(state)] = state
        return network.trunk.run_layers(rows, seen, self.frozen_layers, network.config.inject_at), seen

    def forget_states(self) -> None:
        """Compute the first layers anew from now on; under autocast what was kept has its precision."""
        self._states.clear()

    def connect(self, network: ModelSatNetwork, candidates: Candidates) -> ConnectedZoo:
        """Rows of the candidates by the network's own capability encoder."""
        if network.config.capability_encoder.kind == "text":
            return network.connect_text(*self._texts(network, candidates))
        ids, mask = pad([self._note(note) for note in candidates.notes])
        return network.connect_counts(
            torch.from_numpy(candidates.correct), torch.from_numpy(candidates.total), ids, mask
        )

    def _note(self, note: str) -> np.ndarray:
        if note not in self._note_ids:
            ids = self.tokenizer.text_token_ids(note, MAX_NOTE_TOKENS, special_tokens=False)
            self._note_ids[note] = np.array(ids, np.int32)
        return self._note_ids[note]

    def _texts(self, network: ModelSatNetwork, candidates: Candidates) -> tuple[Tensor, Tensor]:
        """The same texts, in the same task orders, that a deployed router reads."""
        read = TextInputs(self.test, self.tokenizer, network.config.views, network.config.trunk.max_positions)
        profiles = []
        for number, (correct, total) in enumerate(zip(candidates.correct, candidates.total, strict=True)):
            right, asked = (dict(zip(self.test.task_names, map(int, n), strict=True)) for n in (correct, total))
            profiles.append(CapabilityProfile(f"candidate {number}", right, asked, notes=candidates.notes[number]))
        inputs = read(profiles)
        return torch.from_numpy(inputs["capability_ids"]), torch.from_numpy(inputs["capability_mask"])


def pad(rows: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Rows of token ids, at least one column -> ids and mask, int64 ``[N, S]``."""
    longest = max(1, max(len(row) for row in rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.from_numpy(row.astype(np.int64))
        mask[number, : len(row)] = 1
    return ids, mask
