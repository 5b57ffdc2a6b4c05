"""Does an engine say what the fp32 graph says? Asked on this GPU before the engine is kept."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from modelsat_engine.errors import ExecutorError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.candidate_table import CandidateTable
from modelsat_engine.runtime.capability import CapabilityEncoder
from modelsat_engine.runtime.executors import PackedBatch
from modelsat_engine.runtime.executors.onnxruntime import OnnxRuntimeExecutor
from modelsat_engine.runtime.instruction import InstructionTokenizer

#: Largest difference of a probability to the fp32 graph that is still rounding, by precision of the engine.
LARGEST_DIFFERENCE = {"fp32": 1e-3, "fp16": 0.02, "bf16": 0.1, "int8": 0.1}
_INSTRUCTIONS = 64


class Scorer(Protocol):
    """What scores batches: an executor, or the passes of one."""

    def score(self, batch: PackedBatch, table: CandidateTable) -> np.ndarray:
        """Probabilities float32 ``[B, M]``."""


def compare_with_fp32(scorer: Scorer, bundle: Bundle, precision: str) -> dict[str, Any]:
    """Score the same instructions here and in the bundle's fp32 graph on the processor.

    Args:
        scorer: the engine.
        precision: of the engine, which says how far it may be off.

    Returns:
        ``{"instructions", "candidates", "largest_difference", "mean_difference", "route_agreement"}``.

    Raises:
        ExecutorError: it is further off than rounding explains.
    """
    tokenizer = _tokenizer(bundle)
    table = CandidateTable.build(bundle.zoo, CapabilityEncoder(bundle, tokenizer))
    instructions = sample_instructions(bundle, tokenizer)
    exact = OnnxRuntimeExecutor(bundle, threads=1)
    expected = exact.score(PackedBatch.pack(instructions), table)
    exact.close()
    alone = np.concatenate([scorer.score(PackedBatch.pack([ids]), table) for ids in instructions])
    together = scorer.score(PackedBatch.pack(instructions), table)
    difference = np.maximum(np.abs(alone - expected), np.abs(together - expected))
    measured = {
        "instructions": len(instructions),
        "candidates": len(table),
        "largest_difference": float(difference.max()),
        "mean_difference": float(difference.mean()),
        "route_agreement": float((together.argmax(1) == expected.argmax(1)).mean()),
    }
    bound = LARGEST_DIFFERENCE[precision]
    if not measured["largest_difference"] <= bound:  # NaN as well
        raise ExecutorError(
            f"the engine and the fp32 graph differ by {measured['largest_difference']:.2e}, more than {bound:.0e} "
            f"for {precision}; it is not kept"
        )
    return measured


def sample_instructions(bundle: Bundle, tokenizer: InstructionTokenizer) -> list[np.ndarray]:
    """Token ids int32 of texts made of the aptitude test's keywords: from a few tokens to as many as are read."""
    tasks = bundle.aptitude_test.tasks
    found = []
    for number in range(_INSTRUCTIONS):
        taken = (tasks[(7 * number + step) % len(tasks)] for step in range(1 + number % 11))
        text = "Explain " + ", ".join(keyword for task in taken for keyword in task.keywords)
        found.append(tokenizer.tokenise(text).token_ids)
    return found


def _tokenizer(bundle: Bundle) -> InstructionTokenizer:
    longest = int(bundle.config["tokenizer"]["max_instruction_tokens"])
    return InstructionTokenizer.from_file(bundle.file("tokenizer.json"), longest)
