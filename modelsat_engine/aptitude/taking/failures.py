"""What a failed request means for the run: try again, leave this question out, or stop at once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from modelsat_engine.aptitude.taking.pacing import retry_after_s

if TYPE_CHECKING:
    import openai

SHOWN_CHARACTERS = 240
TRY_AGAIN = frozenset({408, 409, 425, 429})


class Failure(Exception):
    """A request that brought no answer.

    Attributes:
        message: what happened, in one line, without the key.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Passing(Failure):
    """May be gone in a moment: a rate limit, an overload, a broken line, half an answer.

    Attributes:
        retry_after_s: the wait that the server asks for; None when it does not say.
        rate_limited: the server is well and asks for fewer requests.
        unreachable: there was nobody to talk to, so this is no matter of the question.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        rate_limited: bool = False,
        unreachable: bool = False,
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.rate_limited = rate_limited
        self.unreachable = unreachable

    @property
    def concerns_all(self) -> bool:
        """Whether the other requests of the run should wait too."""
        return self.rate_limited or self.unreachable or self.retry_after_s is not None


class Refused(Failure):
    """The server does not take this request as it is; asking again would not help.

    Attributes:
        model_unknown: it says that there is no such model.
    """

    def __init__(self, message: str, *, model_unknown: bool = False) -> None:
        super().__init__(message)
        self.model_unknown = model_unknown


class Hopeless(Failure):
    """No request of this run can succeed until somebody changes something."""


def from_status(error: openai.APIStatusError, model: str, unix_s: float, said: str, key_hint: str) -> Failure:
    """The failure behind an answer with status 4xx or 5xx.

    Args:
        said: the server's own words, see :func:`server_words`, without the key.
        key_hint: what to do about the key, for 401 and 403.
    """
    status = error.status_code
    told = f": {said}" if said else ""
    if status == 401:
        return Hopeless(f"the endpoint answers 401 (not authorised){told}; {key_hint}")
    if status == 403:
        return Hopeless(
            f"the endpoint answers 403 (forbidden){told}; check that this key may use the model {model!r}; {key_hint}"
        )
    if status == 402 or (status == 429 and _says(error, "insufficient_quota", "billing_hard_limit")):
        return Hopeless(f"the account has no credit left{told}; top it up, then run the same command again")
    if status in TRY_AGAIN or status >= 500:
        wait = retry_after_s(error.response.headers, unix_s)
        return Passing(f"the endpoint answers {status}{told}", retry_after_s=wait, rate_limited=status == 429)
    unknown = _says(error, "model_not_found") or (
        "model" in said.lower() and re.search(r"not (found|exist|available)|unknown|invalid|pinned|no such", said, re.I)
    )
    if status == 404 and not unknown:
        return Hopeless(
            f"the endpoint answers 404 (not found){told}; check the address (most end with /v1), the model {model!r}, "
            "and --api"
        )
    if status == 405:
        return Hopeless(f"the endpoint answers 405{told}; check the address (most end with /v1) and --api")
    return Refused(f"the endpoint answers {status}{told}", model_unknown=bool(unknown) or model in said)


def server_words(body: Any) -> str:
    """The message in an error's body, whichever of the usual shapes it has, in one short line."""
    for _ in range(3):
        if not isinstance(body, dict):
            break
        body = next((body[key] for key in ("error", "message", "detail", "msg") if body.get(key)), "")
    if isinstance(body, list) and body:
        return server_words(body[0])
    text = body if isinstance(body, str) else "" if body is None else str(body)
    if re.match(r"\s*<(!doctype|html)", text, re.I):
        title = re.search(r"<title>([^<]*)", text, re.I)
        text = title[1] if title else "an HTML page"
    text = "".join(character if character.isprintable() else " " for character in text)
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."


def _says(error: openai.APIStatusError, *codes: str) -> bool:
    return any(value in codes for value in (getattr(error, "code", None), getattr(error, "type", None)))
