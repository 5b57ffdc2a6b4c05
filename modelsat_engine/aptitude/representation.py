"""The capability representation as text: what the paper's capability encoder reads."""

from __future__ import annotations

from collections.abc import Sequence

from modelsat_engine.aptitude.profile import CapabilityProfile
from modelsat_engine.aptitude.test import AptitudeTest
from modelsat_engine.errors import ProfileError


def capability_text(
    profile: CapabilityProfile,
    test: AptitudeTest,
    permutation: Sequence[int] | None = None,
    notes: bool = True,
) -> str:
    """c_m of the paper: one clause per task, accuracy in whole per cent, then the expert notes.

        The model achieves accuracy 85% on groups, rings, fields, homomorphisms, permutations; 40% on ...
        Notes: instruction-tuned.

    The name is left out: a router that reads names cannot judge a model it has not met. The order of the tasks
    carries no meaning, but a text encoder notices it; the paper averages over two shuffles (views).

    Args:
        permutation: the order of the tasks, a permutation of ``range(len(test.tasks))``; default the test's.
        notes: whether to add the expert notes.

    Returns:
        The text. Tasks without an answer are left out; with none at all only the notes remain.

    Raises:
        ProfileError: the profile does not fit the test, or ``permutation`` is not one.
    """
    correct, total = profile.counts(test)  # float32 [T]
    order = list(range(len(test.tasks)) if permutation is None else permutation)
    if sorted(order) != list(range(len(test.tasks))):
        raise ProfileError(f"the order of tasks must be a permutation of 0..{len(test.tasks) - 1}, each number once")
    clauses = [
        f"{100 * float(correct[task]) / float(total[task]):.0f}% on {', '.join(test.tasks[task].keywords)}"
        for task in order
        if total[task]
    ]
    parts = []
    if clauses:
        parts.append(f"The model achieves accuracy {'; '.join(clauses)}.")
    if notes and profile.notes.strip():
        parts.append(f"Notes: {profile.notes.strip().rstrip('.')}.")
    return " ".join(parts)
