"""`--policy` and its parameters: from options to one of the runtime's policies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from modelsat_engine.commands.options import together

if TYPE_CHECKING:
    from modelsat_engine.runtime.policies import Policy

HIGHEST, CHEAPEST_ABOVE, MAXIMUM_UTILITY = "highest", "cheapest-above", "maximum-utility"

policy_options = together(
    click.option(
        "--policy",
        "policy_name",
        type=click.Choice([HIGHEST, CHEAPEST_ABOVE, MAXIMUM_UTILITY]),
        default=HIGHEST,
        show_default=True,
        help="Which candidate to take.",
    ),
    click.option("--threshold", type=float, metavar="P", help="cheapest-above: the P(Yes) that is good enough."),
    click.option("--usd-value", type=float, metavar="USD", help="maximum-utility: what a correct answer is worth."),
    click.option(
        "--tokens-per-request",
        type=float,
        metavar="N",
        help="maximum-utility: tokens an answer is billed for.  [default: 1000]",
    ),
)


def make_policy(
    policy_name: str, threshold: float | None, usd_value: float | None, tokens_per_request: float | None
) -> Policy:
    """The policy that the options describe.

    Raises:
        click.UsageError: a parameter is missing, or belongs to another policy.
        PolicyError: a parameter is out of range.
    """
    from modelsat_engine.runtime.policies import CheapestAbove, HighestProbability, MaximumUtility

    belongs_to = {
        "--threshold": (threshold, CHEAPEST_ABOVE),
        "--usd-value": (usd_value, MAXIMUM_UTILITY),
        "--tokens-per-request": (tokens_per_request, MAXIMUM_UTILITY),
    }
    for option, (value, owner) in belongs_to.items():
        if value is not None and owner != policy_name:
            raise click.UsageError(f"{option} is for --policy {owner}")
    if policy_name == CHEAPEST_ABOVE:
        if threshold is None:
            raise click.UsageError("--policy cheapest-above needs --threshold, for example --threshold 0.7")
        return CheapestAbove(threshold)
    if policy_name == MAXIMUM_UTILITY:
        if usd_value is None:
            raise click.UsageError("--policy maximum-utility needs --usd-value, for example --usd-value 0.01")
        if tokens_per_request is None:
            return MaximumUtility(usd_value)
        return MaximumUtility(usd_value, tokens_per_request)
    return HighestProbability()


def describe(policy: Policy) -> str:
    """A policy in the words of the command line."""
    from modelsat_engine.runtime.policies import CheapestAbove, HighestProbability, MaximumUtility

    if isinstance(policy, HighestProbability):
        return HIGHEST
    if isinstance(policy, CheapestAbove):
        return f"{CHEAPEST_ABOVE} {policy.threshold:g}"
    if isinstance(policy, MaximumUtility):
        value, tokens = policy.usd_value_of_correct, policy.tokens_per_request
        return f"{MAXIMUM_UTILITY} (${value:g} for a correct answer, {tokens:g} tokens a request)"
    return repr(policy)
