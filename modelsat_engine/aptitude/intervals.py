"""Intervals and tests for shares of right answers, each with its source; no dependency beyond the standard library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple


class Interval(NamedTuple):
    """Where a number lies with some confidence."""

    low: float
    high: float


def normal_quantile(confidence: float) -> float:
    """z of a two-sided interval, 1.96 for 0.95.

    Raises:
        ValueError: a confidence outside 0 to 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1, not {confidence}")
    return NormalDist().inv_cdf((1 + confidence) / 2)


def wilson(correct: float, total: float, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share: where a share is not rejected by the score test (E. B. Wilson, 1927).

    (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n). It stays inside [0, 1] and is not empty at 0 and 1.

    Returns:
        (0, 1) when ``total`` is 0: nothing is known.
    """
    if not total:
        return Interval(0.0, 1.0)
    z = normal_quantile(confidence)
    share = correct / total
    middle = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    low = 0.0 if correct <= 0 else max(0.0, (middle - half) / scale)  # exactly, whatever rounding leaves over
    return Interval(low, 1.0 if correct >= total else min(1.0, (middle + half) / scale))


def difference(
    correct_a: float, total_a: float, correct_b: float, total_b: float, confidence: float = 0.95
) -> Interval:
    """Interval of p_a - p_b, of answers to different questions, or by chance to the same.

    Newcombe's hybrid score interval, method 10 of "Interval estimation for the difference between independent
    proportions", Statistics in Medicine 17 (1998), 873-890: Wilson's limits of both, combined by their squares.
    """
    share_a, share_b = correct_a / total_a, correct_b / total_b
    low_a, high_a = wilson(correct_a, total_a, confidence)
    low_b, high_b = wilson(correct_b, total_b, confidence)
    middle = share_a - share_b
    return Interval(
        middle - math.hypot(share_a - low_a, high_b - share_b), middle + math.hypot(high_a - share_a, share_b - low_b)
    )


def paired_difference(both: int, only_a: int, only_b: int, neither: int, confidence: float = 0.95) -> Interval:
    """Interval of p_a - p_b, of answers to the same questions.

    Newcombe's method 10 for paired data, "Improved confidence intervals for the difference between binomial
    proportions based on paired data", Statistics in Medicine 17 (1998), 2635-2650: as for independent shares, less
    what the correlation phi of the answers explains; a positive phi is corrected for continuity.

    Args:
        both, only_a, only_b, neither: questions that both, one or none of the two answered right.
    """
    total = both + only_a + only_b + neither
    right_a, right_b = both + only_a, both + only_b
    share_a, share_b = right_a / total, right_b / total
    low_a, high_a = wilson(right_a, total, confidence)
    low_b, high_b = wilson(right_b, total, confidence)
    margins = right_a * (total - right_a) * right_b * (total - right_b)
    association = float(both * neither - only_a * only_b)
    if association > 0:
        association = max(0.0, association - total / 2)
    phi = association / math.sqrt(margins) if margins else 0.0
    below = (share_a - low_a) ** 2 - 2 * phi * (share_a - low_a) * (high_b - share_b) + (high_b - share_b) ** 2
    above = (high_a - share_a) ** 2 - 2 * phi * (high_a - share_a) * (share_b - low_b) + (share_b - low_b) ** 2
    middle = share_a - share_b
    return Interval(middle - math.sqrt(max(0.0, below)), middle + math.sqrt(max(0.0, above)))


class StratifiedDifference(NamedTuple):
    """p_a - p_b over several tasks together, and its interval."""

    difference: float
    interval: Interval
    p_value: float


def stratified_difference(
    strata: Sequence[tuple[float, float, float, float]], confidence: float = 0.95
) -> StratifiedDifference:
    """The difference over several tasks, each compared within itself.

    The Mantel-Haenszel risk difference, weights n_a n_b / (n_a + n_b), with the variance of Greenland and Robins,
    "Estimation of a common effect parameter from sparse follow-up data", Biometrics 41 (1985), 55-68; a normal
    interval and test. So a model is not better for having been asked more of the easy tasks.

    Args:
        strata: (correct_a, total_a, correct_b, total_b) of each task, totals above 0.
    """
    weights = [na * nb / (na + nb) for _, na, _, nb in strata]
    whole = sum(weights)
    middle = sum(w * (a / na - b / nb) for w, (a, na, b, nb) in zip(weights, strata, strict=True)) / whole
    variance = (
        sum((a * (na - a) * nb**3 + b * (nb - b) * na**3) / (na * nb * (na + nb) ** 2) for a, na, b, nb in strata)
        / whole**2
    )
    error = math.sqrt(variance)
    half = normal_quantile(confidence) * error
    p_value = 1.0 if middle == 0 else math.erfc(abs(middle) / error / math.sqrt(2)) if error else 0.0
    return StratifiedDifference(middle, Interval(max(-1.0, middle - half), min(1.0, middle + half)), p_value)


def mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's test in its mid-p form, two-sided: are the questions that only one answered right a fair coin?

    The exact binomial test less half the probability of what was seen. Fagerland, Lydersen and Laake, BMC Medical
    Research Methodology 13:91 (2013): the exact test is needlessly strict, mid-p keeps its level nearly always.
    """
    count = only_a + only_b
    less = min(only_a, only_b)
    if only_a == only_b:
        return 1.0
    tail = sum(math.comb(count, k) for k in range(less + 1))
    return (2 * tail - math.comb(count, less)) / (1 << count)


def fisher(correct_a: int, total_a: int, correct_b: int, total_b: int) -> float:
    """Fisher's test of two shares in its mid-p form, two-sided.

    All tables with the same margins that are less likely than what was seen, and half of those as likely; mid-p for
    the same reason as in :func:`mcnemar` (Lydersen, Fagerland and Laake, Statistics in Medicine 28, 2009).
    """
    right = correct_a + correct_b
    weights = [
        math.comb(total_a, k) * math.comb(total_b, right - k)
        for k in range(max(0, right - total_b), min(total_a, right) + 1)
    ]
    seen = math.comb(total_a, correct_a) * math.comb(total_b, correct_b)
    doubled = sum(2 * weight if weight < seen else weight for weight in weights if weight <= seen)
    return doubled / (2 * math.comb(total_a + total_b, right))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values of several tests, adjusted so that a false alarm anywhere is as rare as one test's (Holm, 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = largest
    return adjusted
