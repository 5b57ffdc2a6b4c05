"""How far a faster answer is from the float32 one: in probability, in choices, and judged by real outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from latency.contenders import Contender
from modelsat_engine.aptitude.building import profiles_from_outcomes
from modelsat_engine.errors import DataError
from modelsat_engine.evaluation.metrics import expected_calibration_error, pooled_auc
from modelsat_engine.evaluation.outcomes import OutcomeData
from modelsat_engine.evaluation.run import recorded_split
from modelsat_engine.evaluation.scenarios import make_scenarios
from modelsat_engine.evaluation.splits import Split
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.candidate_table import EncodedCandidates
from modelsat_engine.runtime.capability import CapabilityEncoder
from modelsat_engine.runtime.instruction import InstructionTokenizer


def distance(P: np.ndarray, exact: np.ndarray) -> dict[str, Any]:
    """How answers differ from the float32 ones, both ``[Q, M]``, routing by the highest probability.

    Returns:
        ``route_agreement``; ``mean_loss_of_p``: what float32 thinks is lost by the other choice, over all
        instructions, and ``mean_loss_of_p_where_changed`` over those with another choice; ``mean_abs_dp``,
        ``max_abs_dp``.
    """
    chosen, expected = P.argmax(1), exact.argmax(1)
    loss = exact.max(1) - np.take_along_axis(exact, chosen[:, None], 1)[:, 0]  # [Q]
    changed = chosen != expected
    return {
        "instructions": len(P),
        "candidates": P.shape[1],
        "route_agreement": round(float((~changed).mean()), 5),
        "mean_loss_of_p": round(float(loss.mean()), 7),
        "mean_loss_of_p_where_changed": round(float(loss[changed].mean()), 7) if changed.any() else 0.0,
        "mean_abs_dp": round(float(np.abs(P - exact).mean()), 7),
        "max_abs_dp": round(float(np.abs(P - exact).max()), 7),
    }


ZOO_SIZE, RANDOM_ZOOS = 5, 200


def agreement_in_zoos(P: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """Share of equal choices in zoos of five of the M models, both ``[Q, M]``.

    In ``random`` zoos, and in ``similar`` ones: each model with the four next to it in mean probability, where choices
    are closest.
    """
    models = P.shape[1]
    rng = np.random.default_rng(0)
    order = np.argsort(-exact.mean(0))
    zoos = {
        "random": [rng.choice(models, ZOO_SIZE, replace=False) for _ in range(RANDOM_ZOOS)],
        "similar": [order[start : start + ZOO_SIZE] for start in range(models - ZOO_SIZE + 1)],
    }
    return {
        f"route_agreement_{kind}_five": round(
            float(np.mean([(P[:, zoo].argmax(1) == exact[:, zoo].argmax(1)).mean() for zoo in members])), 5
        )
        for kind, members in zoos.items()
    }


class RealOutcomes:
    """Test questions with real outcomes of models, as the router's own training record allows.

    Args:
        data_dir: directory of outcomes, as ``modelsat evaluate`` reads.
        questions: at most this many; the choice depends on question ids only.

    Raises:
        DataError, BundleError: the data is malformed, or the bundle records no split.
    """

    def __init__(self, bundle: Bundle, data_dir: Path, questions: int) -> None:
        data = OutcomeData.load(data_dir)
        split = Split.from_json(recorded_split(bundle), data, bundle.aptitude_test)
        scenarios = make_scenarios(data, split, ["seen_models", "new_models"], questions)
        columns = scenarios[0].columns
        tokenizer = InstructionTokenizer.from_file(
            bundle.file("tokenizer.json"), int(bundle.config["tokenizer"]["max_instruction_tokens"])
        )
        self.texts = [data.questions.instruction[column] for column in columns]
        self._tokens = [tokenizer.tokenise(text).token_ids for text in self.texts]
        self._own = len(bundle.zoo)
        self._outcomes: dict[str, tuple[slice, np.ndarray]] = {}  # columns of P, and Y [Q, M]
        encoder = CapabilityEncoder(bundle, tokenizer)
        parts = [encoder.encode(bundle.zoo)]
        start = self._own
        for scenario in scenarios:
            parts.append(encoder.encode(profiles_from_outcomes(data, bundle.aptitude_test, scenario.rows)))
            stop = start + len(scenario.rows)
            Y = data.Y[np.ix_(scenario.rows, columns)].T
            self._outcomes[scenario.name] = slice(start, stop), Y
            start = stop
        self._candidates = EncodedCandidates.concatenate(parts)

    def measure(self, contenders: Sequence[Contender], exact_name: str) -> dict[str, dict[str, Any]]:
        """Distance (in the bundle's own zoo, then in others), AUC and ECE of every contender, beside the exact one's.

        Raises:
            DataError: no contender has the name ``exact_name``.
        """
        scores = {contender.name: self._scores(contender) for contender in contenders}
        if exact_name not in scores:
            raise DataError(f"quality is measured against {exact_name}, which is not there")
        exact = scores[exact_name]
        result = {}
        for name, P in scores.items():
            row = distance(P[:, : self._own], exact[:, : self._own])
            row |= agreement_in_zoos(P[:, self._own :], exact[:, self._own :])
            row["mean_abs_dp_all_models"] = round(float(np.abs(P - exact).mean()), 7)
            for scenario, (columns, Y) in self._outcomes.items():
                auc = pooled_auc(P[:, columns], Y)
                row[f"auc_{scenario}"] = round(auc, 5)
                row[f"auc_loss_{scenario}"] = round(pooled_auc(exact[:, columns], Y) - auc, 6)
                row[f"ece_{scenario}"] = round(expected_calibration_error(P[:, columns], Y), 5)
            result[name] = row
        return result

    def _scores(self, contender: Contender) -> np.ndarray:
        return np.concatenate([contender.prepare([ids], self._candidates)() for ids in self._tokens])  # [Q, M]
