"""What a router network is made of, as plain data that router.json stores."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Layout = Literal["shared", "capability_first"]

#: Numbers that a candidate's evidence holds besides one per task: a constant, its overall strength, its expert note.
NOTE_FEATURES = 4
OTHER_EVIDENCE = 2 + NOTE_FEATURES


@dataclass(frozen=True)
class TrunkConfig:
    """Shape of an encoder trunk of the BERT family (post-norm, learned positions, GELU)."""

    layers: int = 6
    hidden: int = 384
    heads: int = 12
    intermediate: int = 1536
    vocab: int = 30522
    max_positions: int = 512
    layer_norm_eps: float = 1e-12
    kind: str = "encoder"

    def __post_init__(self) -> None:
        if self.kind != "encoder":
            raise ValueError(f"trunk kind {self.kind!r} is not known; this version has 'encoder'")
        if self.hidden % self.heads:
            raise ValueError(f"hidden size {self.hidden} is not a multiple of {self.heads} heads")


@dataclass(frozen=True)
class CapabilityEncoderConfig:
    """psi, the encoder of a capability representation.

    Args:
        kind: "taskwise" (embedded keywords with numeric accuracies) or "text" (the paper's sentence).
        size: width E of psi(c).
        tasks: number of tasks in the aptitude test.
        keyword_size: width of a task's keyword embedding (taskwise only).
        prior_strength: pseudo-answers that pull a task's accuracy toward the candidate's overall one.
    """

    kind: Literal["taskwise", "text"] = "taskwise"
    size: int = 256
    tasks: int = 50
    keyword_size: int = 384
    prior_strength: float = 8.0


@dataclass(frozen=True)
class NetworkConfig:
    """The whole network.

    Args:
        layout: "shared" scores a zoo in one pass; "capability_first" is the paper's order, a pass per pair.
        inject_at: first trunk layer that inquiry and memory rows pass, 0 <= inject_at < layers.
        memory_rows: K; 0 means that the inquiry row itself starts from the connected capability.
        views: R shuffles of the task order whose scores are averaged; 1 for a permutation-invariant encoder.
        head: "yes_no" (two rows of an LM head) or "regression" (one row).
        relevance_hidden: hidden width of the relevance head, which weighs a candidate's task evidence by what the
            instruction is about (`model.relevance`); 0 for none. Needs the shared layout and a taskwise encoder.
        refinement_axes: A, numbers at the end of a candidate's evidence for what its graded answers beside the aptitude
            test say (`training.refinement`); 0 for none. Needs a relevance head.
    """

    trunk: TrunkConfig = field(default_factory=TrunkConfig)
    capability_encoder: CapabilityEncoderConfig = field(default_factory=CapabilityEncoderConfig)
    layout: Layout = "shared"
    inject_at: int = 4
    memory_rows: int = 0
    views: int = 1
    head: Literal["yes_no", "regression"] = "yes_no"
    relevance_hidden: int = 0
    refinement_axes: int = 0

    def __post_init__(self) -> None:
        if self.layout not in ("shared", "capability_first"):
            raise ValueError(f"layout {self.layout!r} is not known: use 'shared' or 'capability_first'")
        if not 0 <= self.inject_at < self.trunk.layers:
            raise ValueError(f"inject_at {self.inject_at} must be a layer of the trunk: 0 to {self.trunk.layers - 1}")
        if self.memory_rows < 0 or self.views < 1:
            raise ValueError("memory_rows must be 0 or more, and views 1 or more")
        if self.head not in ("yes_no", "regression"):
            raise ValueError(f"head {self.head!r} is not known: use 'yes_no' or 'regression'")
        if self.relevance_hidden < 0:
            raise ValueError("relevance_hidden must be 0 or more")
        if self.relevance_hidden and (self.layout != "shared" or self.capability_encoder.kind != "taskwise"):
            raise ValueError("a relevance head needs layout 'shared' and a taskwise capability encoder")
        if self.refinement_axes and not 2 <= self.refinement_axes <= self.relevance_hidden:
            raise ValueError("refinement_axes must be 0, or 2 to relevance_hidden")
        per_task = self.capability_encoder.tasks + 1
        if self.capability_encoder.kind == "taskwise" and self.memory_rows not in (0, 1, per_task):
            raise ValueError(f"a taskwise encoder gives 0, 1 or {per_task} memory rows, not {self.memory_rows}")

    @property
    def late_layers(self) -> int:
        """Number of trunk layers that inquiry and memory rows pass."""
        return self.trunk.layers - self.inject_at

    @property
    def evidence_size(self) -> int:
        """E, numbers of evidence that follow the D of an inquiry start; 0 without a relevance head."""
        if not self.relevance_hidden:
            return 0
        return OTHER_EVIDENCE + self.capability_encoder.tasks + self.refinement_axes

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> NetworkConfig:
        plain = ("layout", "inject_at", "memory_rows", "views", "head", "relevance_hidden", "refinement_axes")
        sizes = {name: data[name] for name in plain if name in data}
        return cls(
            trunk=TrunkConfig(**data.get("trunk", {})),
            capability_encoder=CapabilityEncoderConfig(**data.get("capability_encoder", {})),
            **sizes,
        )
