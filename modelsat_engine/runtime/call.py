"""One call of the engine on its way: its instructions, tokenised one by one, and the decisions made of its answers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from modelsat_engine.errors import InstructionError, PolicyError
from modelsat_engine.runtime.call_options import CallOptions
from modelsat_engine.runtime.decision import RoutingDecision
from modelsat_engine.runtime.dispatch import Answers, BoundTable
from modelsat_engine.runtime.instruction import Instruction, InstructionTokenizer, TokenisedInstruction
from modelsat_engine.runtime.intervals import bounds
from modelsat_engine.runtime.policies import HighestProbability, Policy

_DEFAULT_POLICY = HighestProbability()


@dataclass
class Call:
    """What one call asked for, and its instructions as far as they are tokenised.

    Attributes:
        options: deadline, priority, and when the call began.
        bound: the zoo of the moment it began.
        instructions: B of them.
        named: whether an error says which instruction it is about.
        interval: how sure the ranges should be, or None for none.
        tokenised, tokenise_us: of the first instructions, and how long each took.
    """

    options: CallOptions
    bound: BoundTable
    instructions: Sequence[Instruction]
    named: bool
    interval: float | None = None
    tokenised: list[TokenisedInstruction] = field(default_factory=list)
    tokenise_us: list[float] = field(default_factory=list)

    @property
    def scored(self) -> BoundTable:
        """The table whose columns are scored: with intervals, wider than the zoo."""
        return self.bound if self.interval is None or self.bound.wide is None else self.bound.wide

    @property
    def token_ids(self) -> list[np.ndarray]:
        """int32 ``[S_b]`` of each tokenised instruction."""
        return [instruction.token_ids for instruction in self.tokenised]

    def tokenise(self, tokenizer: InstructionTokenizer) -> Iterator[float]:
        """Tokenise the instructions one by one; yields how long each took, in us.

        Raises:
            InstructionError: an instruction that cannot be read.
        """
        for index, instruction in enumerate(self.instructions):
            started = time.perf_counter()
            try:
                self.tokenised.append(tokenizer.tokenise(instruction))
            except InstructionError as error:
                raise InstructionError(f"instruction {index}: {error}") if self.named else error from None
            took_us = (time.perf_counter() - started) * 1e6
            self.tokenise_us.append(took_us)
            yield took_us

    def decide(self, answers: Answers, policy: Policy, bundle: str, executor: str) -> list[RoutingDecision]:
        """The policy's choice for each instruction.

        Args:
            bundle, executor: their names, for the decisions.

        Raises:
            PolicyError: the policy needs a price that a candidate lacks, or chose a column that is not there.
        """
        table = self.bound.table
        scores = np.ascontiguousarray(answers.probabilities[:, : len(table)])  # [B, M]
        columns = np.asarray(policy.choose(scores, table))  # [B]
        if columns.shape != (len(scores),) or ((columns < 0) | (columns >= len(table))).any():
            raise PolicyError(f"{policy} must choose one of {len(table)} columns for each instruction")
        ranges = self._ranges(answers)
        total_us = round(self.options.elapsed_us, 1)
        return [
            RoutingDecision(
                candidate=table.names[column],
                probability=row[column],
                probabilities=dict(zip(table.names, row, strict=True)),
                policy=repr(policy),
                timing_us={
                    "tokenise": round(tokenise_us, 1),
                    "queue": float(queue_us),
                    "execute": float(execute_us),
                    "total": total_us,
                },
                truncated=instruction.truncated,
                instruction_tokens=instruction.total_tokens,
                ignored_parts=instruction.ignored_parts,
                bundle=bundle,
                executor=executor,
                interval=self.interval,
                intervals=intervals,
            )
            for instruction, tokenise_us, queue_us, execute_us, column, row, intervals in zip(
                self.tokenised,
                self.tokenise_us,
                answers.queue_us.tolist(),
                answers.execute_us.tolist(),
                columns.tolist(),
                scores.tolist(),
                ranges,
                strict=True,
            )
        ]

    def _ranges(self, answers: Answers) -> list[dict[str, tuple[float, float]] | None]:
        """For each instruction, candidate -> low and high end; Nones without intervals."""
        if self.interval is None:
            return [None] * len(answers.probabilities)
        names = self.bound.table.names
        low, high = bounds(answers.probabilities, len(names), self.interval)
        return [
            dict(zip(names, zip(*ends, strict=True), strict=True))
            for ends in zip(low.tolist(), high.tolist(), strict=True)
        ]


def checked_policy(policy: Policy | None) -> Policy:
    """The policy, or the default one for None.

    Raises:
        PolicyError: what was given is no policy.
    """
    if policy is None:
        return _DEFAULT_POLICY
    if not callable(getattr(policy, "choose", None)) or isinstance(policy, type):
        raise PolicyError(f"policy is {policy!r}; use a policy such as CheapestAbove(threshold=0.7)")
    return policy
