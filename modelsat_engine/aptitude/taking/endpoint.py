"""One question, one answer: a model behind an OpenAI-compatible server, through the `openai` client."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from functools import partial
from typing import Any

from modelsat_engine.aptitude.taking.access import ApiKey
from modelsat_engine.aptitude.taking.failures import Failure, Passing, Refused, from_status, server_words
from modelsat_engine.aptitude.taking.pacing import Clock
from modelsat_engine.aptitude.taking.prompts import Prompt
from modelsat_engine.aptitude.taking.protocol import Protocol
from modelsat_engine.errors import MissingExtraError

CONNECT_TIMEOUT_S = 10.0
MODEL_LIST_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Answer:
    """What came back for one request.

    Attributes:
        text: the answer; "" when the model said nothing.
        thoughts: reasoning that the server returned apart from the answer, or "".
        finish_reason: why the model stopped: "stop", "length", ...; None when the server did not say.
        prompt_tokens, completion_tokens: as the server counted them; None when it did not.
        latency_s: from sending to the last byte.
    """

    text: str
    thoughts: str
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    latency_s: float


class Endpoint:
    """A model that answers questions; close it when done.

    Args:
        url: the base address, as :func:`check_url` returns it.
        model: the name that the server knows the model by.
        timeout_s: the longest one request may take, from sending to the last byte.
        stream: let answers come in pieces, for gateways that cut a line which is silent for long.

    Raises:
        MissingExtraError: the `openai` client is not installed.
    """

    def __init__(
        self, url: str, model: str, protocol: Protocol, key: ApiKey, clock: Clock, *, timeout_s: float, stream: bool
    ) -> None:
        try:
            import openai
        except ImportError as error:
            raise MissingExtraError("asking an endpoint", "aptitude") from error
        self.url = url
        self.model = model
        self._openai = openai
        self._protocol = protocol
        self._key = key
        self._clock = clock
        self._timeout_s = timeout_s
        self._stream = stream
        self._limit_field = "max_tokens"
        # The client insists on a key; without one its header is left out
        self._headers: dict[str, Any] = {} if key.value else {"Authorization": openai.Omit()}
        # Retries are ours, see pacing.py
        self._client = openai.AsyncOpenAI(
            api_key=key.value or "none",
            base_url=url,
            max_retries=0,
            timeout=openai.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s)),
        )

    async def close(self) -> None:
        """Let the connections go."""
        await self._client.close()

    async def ask(self, prompt: Prompt) -> Answer:
        """Send one request and wait for its answer.

        Raises:
            Passing, Refused, Hopeless: there is none, and what that means for the run.
        """
        try:
            return await self._ask(prompt)
        except Refused as failure:
            # newer OpenAI models know the limit by another name only
            if self._limit_field != "max_tokens" or "max_completion_tokens" not in failure.message:
                raise
            self._limit_field = "max_completion_tokens"
        return await self._ask(prompt)

    async def model_names(self) -> list[str]:
        """The models that the server says it has; empty when it does not say."""
        try:
            page = await asyncio.wait_for(self._client.models.list(extra_headers=self._headers), MODEL_LIST_TIMEOUT_S)
            return [self._key.hidden_in(str(model.id)) for model in page.data or []]
        except (self._openai.OpenAIError, TimeoutError, asyncio.TimeoutError, ValueError, AttributeError, TypeError):
            return []

    async def _ask(self, prompt: Prompt) -> Answer:
        started_s = self._clock.now_s()
        failure: Failure
        try:
            body = await asyncio.wait_for(self._request(prompt), self._timeout_s)
        except self._openai.APIStatusError as error:
            said = self._key.hidden_in(server_words(error.body if error.body is not None else error.message))
            failure = from_status(error, self.model, self._clock.unix_s(), said, self._key.hint)
        except (self._openai.APITimeoutError, TimeoutError, asyncio.TimeoutError):
            failure = Passing(f"no answer within {self._timeout_s:g} s")
        except self._openai.APIConnectionError as error:
            failure = self._line_broke(error.__cause__ or error)
        except self._openai.APIError as error:  # an error in the middle of a stream
            failure = Passing(self._key.hidden_in(server_words(error.message)))
        except (ValueError, RecursionError) as error:  # not JSON, or not UTF-8
            failure = Passing(f"the answer is damaged ({type(error).__name__})")
        except OSError as error:
            failure = self._line_broke(error)
        except Exception as error:
            # the client's HTTP library changed its name once; its errors are known by where they come from
            if not type(error).__module__.startswith(("httpx", "httpcore")):
                raise
            failure = self._line_broke(error)
        else:
            return self._answer(body, self._clock.now_s() - started_s)
        raise failure from None  # the cause carries the request, with the key among its headers

    async def _request(self, prompt: Prompt) -> dict[str, Any]:
        fields = self._protocol.request_fields()
        if "max_tokens" in fields:
            fields[self._limit_field] = fields.pop("max_tokens")
        if self._stream and "stream_options" not in self._protocol.omit:
            fields["stream_options"] = {"include_usage": True}
        # What comes back is read by hand: the client would pass a broken body on as if it were an answer
        if self._protocol.api == "chat":
            chat: Any = self._client.chat.completions
            create = partial(chat.create if self._stream else chat.with_raw_response.create, messages=prompt)
        else:
            text: Any = self._client.completions
            create = partial(text.create if self._stream else text.with_raw_response.create, prompt=prompt)
        create = partial(create, model=self.model, extra_body=fields, extra_headers=self._headers)
        if self._stream:
            return await _joined(await create(stream=True))
        response = await create()
        return _object(json.loads(response.content))

    def _answer(self, body: dict[str, Any], latency_s: float) -> Answer:
        """The answer in a response's body, which may be anything that is JSON."""
        if body.get("error") and not body.get("choices"):
            raise Passing(f"the endpoint answers with an error: {self._key.hidden_in(server_words(body))}")
        choices = body.get("choices")
        if not isinstance(choices, list) or not choices:
            raise Passing("the answer holds no choices; is this an OpenAI-compatible endpoint?")
        choice = _object(choices[0])
        message = _object(choice.get("message") or {}) if self._protocol.api == "chat" else choice
        content = message.get("content" if self._protocol.api == "chat" else "text")
        thoughts = message.get("reasoning_content") or message.get("reasoning")
        usage = body.get("usage") if isinstance(body.get("usage"), dict) else {}
        reason = choice.get("finish_reason")
        return Answer(
            text=self._key.hidden_in(_text(content) or _text(message.get("refusal"))),
            thoughts=self._key.hidden_in(_text(thoughts)),
            finish_reason=self._key.hidden_in(reason)[:40] if isinstance(reason, str) else None,
            prompt_tokens=_count(usage, "prompt_tokens"),
            completion_tokens=_count(usage, "completion_tokens"),
            latency_s=latency_s,
        )

    def _line_broke(self, cause: BaseException) -> Passing:
        kind = type(cause).__name__
        words = self._key.hidden_in(server_words(str(cause)))
        unreachable = kind in ("ConnectError", "ConnectTimeout", "ProxyError", "ConnectionRefusedError")
        what = f"cannot reach {self.url}" if unreachable else "the connection broke"
        return Passing(f"{what} ({words or kind})", unreachable=unreachable)


async def _joined(stream: Any) -> dict[str, Any]:
    """The body that a stream's pieces would have been in one; Passing when it ends before the model did."""
    pieces: dict[str, list[str]] = {"content": [], "text": [], "reasoning_content": [], "reasoning": []}
    reason: Any = None
    usage: Any = None
    async for event in stream:
        if not hasattr(event, "to_dict"):
            raise Passing("the stream holds something else than pieces of an answer")
        body = event.to_dict(warnings=False)
        usage = body.get("usage") or usage
        for choice in (body.get("choices") or [])[:1]:
            reason = choice.get("finish_reason") or reason
            for part in (choice, choice.get("delta") or {}):
                for name, texts in pieces.items():
                    texts.append(_text(part.get(name)))
    if reason is None:
        raise Passing("the stream ended before the answer did")
    joined = {name: "".join(texts) for name, texts in pieces.items()}
    return {"choices": [{"message": joined, "text": joined["text"], "finish_reason": reason}], "usage": usage}


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Passing("the answer is not shaped like one; is this an OpenAI-compatible endpoint?")
    return value


def _text(value: Any) -> str:
    """A message's content: text, or a list of parts that hold text."""
    if isinstance(value, list):
        return "".join(_text(part.get("text")) for part in value if isinstance(part, dict))
    # half a surrogate pair is legal JSON and no text; a log in UTF-8 could not hold it
    return value.encode("utf-8", errors="replace").decode("utf-8") if isinstance(value, str) else ""


def _count(usage: Any, name: str) -> int | None:
    value = usage.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
