"""What is scored: instructions of an exact length, and as many candidates as are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.candidate_table import EncodedCandidates
from modelsat_engine.runtime.capability import CapabilityEncoder
from modelsat_engine.runtime.instruction import InstructionTokenizer

INVENTED = (
    "Prove that the sum of two odd numbers is even, and say where the proof uses that they are odd.",
    "A shop sells pens at 3 for 2 euros. How many pens can I buy with 17 euros, and what is left?",
    "Which of these enzymes unwinds the double helix: ligase, helicase, primase or gyrase? Explain in one sentence.",
    "Rewrite this sentence in the passive voice without changing its meaning: the committee rejected our proposal.",
    "What does this function return for an empty list, and how would you change it to raise an error instead?",
    "Summarise the causes of the French revolution for a ten-year-old, in three short paragraphs.",
    "Is a verbal promise to sell a house binding under common law? Name the rule and its usual exception.",
    "Translate into Latin: the old sailor told the children a story about the sea.",
    "Find the eigenvalues of the matrix with rows (2, 1) and (1, 2), and a unit vector for each.",
    "Why does ice float on water although most solids sink in their own liquid?",
    "Write a regular expression for a date such as 2024-02-29; may it accept dates that do not exist?",
    "A ball is thrown upward at 12 metres per second from a bridge 20 metres high. When does it reach the water?",
)


class Material:
    """Draws instructions and candidates for one bundle.

    Args:
        texts: real instructions, or None for a dozen invented ones.
        longest_tokens: longest instruction that will be asked for.
    """

    def __init__(self, bundle: Bundle, texts: Sequence[str] | None, longest_tokens: int) -> None:
        self._texts = list(texts or INVENTED)
        self._tokenizers = {
            longest_tokens: InstructionTokenizer.from_file(bundle.file("tokenizer.json"), longest_tokens)
        }
        self._path = bundle.file("tokenizer.json")
        self.zoo = CapabilityEncoder(bundle, self._tokenizers[longest_tokens]).encode(bundle.zoo)

    def instructions(self, tokens: int, count: int) -> list[np.ndarray]:
        """``count`` different instructions of exactly ``tokens`` tokens: texts in a row, cut as the engine cuts."""
        tokenizer = self._tokenizers.get(tokens)
        if tokenizer is None:
            tokenizer = self._tokenizers[tokens] = InstructionTokenizer.from_file(self._path, tokens)
        made = []
        for index in range(count):
            text, following = "", index
            while True:
                text += " " + self._texts[following % len(self._texts)]
                following += 1
                ids = tokenizer.tokenise(text).token_ids
                if len(ids) == tokens:
                    made.append(ids)
                    break
        return made

    def candidates(self, count: int, seed: int = 11) -> EncodedCandidates:
        """``count`` candidates: the bundle's own, then mixtures of two of them."""
        rng = np.random.default_rng(seed)
        own = len(self.zoo.inquiry_start)
        if count <= own:
            return self.zoo.rows(slice(0, count))
        first, second = rng.integers(own, size=(2, count - own))
        share = rng.random(count - own, np.float32)

        def mixed(rows: np.ndarray) -> np.ndarray:
            weight = share.reshape(-1, *[1] * (rows.ndim - 1))
            mixture: np.ndarray = weight * rows[first] + (1 - weight) * rows[second]
            return mixture

        memory = None if self.zoo.memory is None else mixed(self.zoo.memory)
        mixtures = EncodedCandidates(mixed(self.zoo.inquiry_start), memory)
        return EncodedCandidates.concatenate([self.zoo, mixtures])
