"""The run itself: asks what the log lacks, several questions at a time, until all are answered or it must stop."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import random
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelsat_engine.aptitude.taking.endpoint import Answer, Endpoint
from modelsat_engine.aptitude.taking.extraction import grade
from modelsat_engine.aptitude.taking.failures import Failure, Hopeless, Passing, Refused
from modelsat_engine.aptitude.taking.log import ANSWER, FAILURE, AnswerLog
from modelsat_engine.aptitude.taking.pacing import Clock, Pacer, backoff_s
from modelsat_engine.aptitude.taking.prompts import Prompt, make_prompt, rotated, rotation_count
from modelsat_engine.aptitude.taking.protocol import Protocol
from modelsat_engine.aptitude.taking.selection import Item
from modelsat_engine.aptitude.taking.tally import Tally
from modelsat_engine.errors import DataError

# One question without an answer is that question's fault, several in a row are the endpoint's; a refusal costs
# no waiting, and some questions of a test are refused for what they are about
MOST_FAILURES_IN_A_ROW = 3
MOST_REFUSALS_IN_A_ROW = 20
# Before the first answer of a run a failure is rather a wrong setting than bad luck
FIRST_RETRIES = 2
LOGGED_HEAD, LOGGED_TAIL = 20_000, 80_000
NAMES_SHOWN = 8


@dataclass(frozen=True)
class Effort:
    """How hard to try.

    Attributes:
        concurrency: requests under way at the same time.
        retries: further attempts for one request that fails in a way that may pass.
        longest_wait_s: the longest wait that a server may ask for; more than that stops the run.
        requests_per_minute: the most requests to send a minute; None for no limit of our own.
    """

    concurrency: int = 8
    retries: int = 6
    longest_wait_s: float = 600.0
    requests_per_minute: float | None = None


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
        asked: requests that brought an answer in this run.
        failed: ids of items that brought none in this run, with the reason.
        stopped: why the run ended early, in one line; None when it came to its end.
        interrupted: it was ended by the user.
        certain: it ended early because what was answered is enough.
        seconds: how long it took.
    """

    asked: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    stopped: str | None = None
    interrupted: bool = False
    certain: bool = False
    seconds: float = 0.0


class Session:
    """One run over one log.

    Args:
        items: the questions, in the order to ask them.
        log: opened; its answers are counted and not asked again.
        enough: asked before every question, with what is graded so far, whether that will do.
        tell: called after every answer, and with a note when the run waits.

    Raises:
        DataError: the log holds an answer to another text of a question than the one at hand.
    """

    def __init__(
        self,
        items: Sequence[Item],
        protocol: Protocol,
        endpoint: Endpoint,
        log: AnswerLog,
        clock: Clock,
        *,
        effort: Effort | None = None,
        usd_per_million_tokens: float | None = None,
        rng: random.Random | None = None,
        enough: Callable[[Mapping[str, bool]], bool] = lambda graded: False,
        tell: Callable[[str], None] = lambda note: None,
    ) -> None:
        self.items = items
        self.effort = effort or Effort()
        self._protocol = protocol
        self._endpoint = endpoint
        self._log = log
        self._clock = clock
        self._rng = rng or random.Random()
        self._enough = enough
        self.tell = tell
        self._pacer = Pacer(clock, self._rng, self.effort.requests_per_minute)
        self._failures_in_a_row = 0
        self._started_s = clock.now_s()
        self.outcome = Outcome()
        self.tally = tally_of(items, protocol, log, usd_per_million_tokens)
        self.resumed = self.tally.answers
        self._left = deque(item for item in items if self.tally.next_rotation(item.id) is not None)

    async def run(self) -> Outcome:
        """Ask what is left; returns whatever happens, with everything that was answered in the log."""
        self._started_s = self._clock.now_s()
        with _interrupts(asyncio.current_task()):
            try:
                if item := self._next():
                    await self._item(item)  # alone, so that a wrong setting is met once
                await self._crowd()
            except Failure as failure:
                self.outcome.stopped = failure.message
            except DataError as error:  # the log cannot be written
                self.outcome.stopped = str(error)
            except asyncio.CancelledError:
                self.outcome.interrupted = True
            finally:
                self.outcome.seconds = self._clock.now_s() - self._started_s
                with contextlib.suppress(Exception):  # nothing that goes wrong here matters any more
                    await self._endpoint.close()
        return self.outcome

    @property
    def answers_per_second(self) -> float:
        """Answers of this run over its time so far."""
        seconds = self.outcome.seconds or self._clock.now_s() - self._started_s
        return self.outcome.asked / seconds if seconds > 0 else 0.0

    async def _crowd(self) -> None:
        workers = [asyncio.ensure_future(self._work()) for _ in range(min(self.effort.concurrency, len(self._left)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self) -> None:
        while item := self._next():
            await self._item(item)

    def _next(self) -> Item | None:
        """The item to ask now; None when all are asked, or enough of them are graded."""
        if not self._left:
            return None
        self.outcome.certain = self._enough(self.tally.graded)
        return None if self.outcome.certain else self._left.popleft()

    async def _item(self, item: Item) -> None:
        """Ask an item until it is decided: once, or rotation after rotation while all are right."""
        rotations = rotation_count(item.question, self._protocol)
        while (rotation := self.tally.next_rotation(item.id)) is not None:
            question = rotated(item.question, rotation, rotations)
            prompt = make_prompt(question, self._protocol)
            try:
                answer, attempts = await self._ask(prompt)
            except (Passing, Refused) as failure:
                self._give_up(item, rotation, failure)
                return
            graded = grade(question, answer.text)
            record = {
                "kind": ANSWER,
                "id": item.id,
                "task": item.task,
                "rotation": rotation,
                "question_hash": item.question.hash,
                "prompt": prompt,
                "answer": _shortened(answer.text),
                "parsed": graded.parsed,
                "gold": question.answer,
                "correct": graded.correct,
                **_figures(answer),
                "attempts": attempts,
                "at": _utc(self._clock.unix_s()),
            }
            if answer.thoughts:
                record["thoughts"] = _shortened(answer.thoughts)
            self._log.append(record)
            self.tally.add(record)
            self.outcome.asked += 1
            self._failures_in_a_row = 0
            self.tell("")

    async def _ask(self, prompt: Prompt) -> tuple[Answer, int]:
        """An answer and the number of requests it took; raises the failure that retries did not cure."""
        sent = failed = 0
        seen = self.outcome.asked
        while True:
            await self._pacer.turn()
            sent += 1
            try:
                return await self._endpoint.ask(prompt), sent
            except Passing as failure:
                if failure.unreachable and not self.outcome.asked:
                    raise Hopeless(
                        f"{failure.message}; start the server, or check --endpoint {self._endpoint.url}"
                    ) from None
                # while others are answered, a rate limit only says "not so fast" and uses up no attempt
                if not (failure.rate_limited and self.outcome.asked > seen):
                    failed += 1
                seen = self.outcome.asked
                first = not self.outcome.asked and not failure.concerns_all
                if failed > (min(self.effort.retries, FIRST_RETRIES) if first else self.effort.retries):
                    raise
                wait_s = max(backoff_s(max(failed, 1), self._rng), failure.retry_after_s or 0.0)
                if wait_s > self.effort.longest_wait_s:
                    raise Hopeless(
                        f"{failure.message}, and asks to wait {wait_s:,.0f} s, longer than --max-wait; go on later"
                    ) from None
                if wait_s >= 1:
                    self.tell(f"waiting {wait_s:.0f} s: {failure.message}")
                if failure.concerns_all:
                    self._pacer.pause(wait_s)
                else:
                    await self._clock.sleep(wait_s)
            except Refused as failure:
                if failure.model_unknown:
                    raise Hopeless(await self._unknown_model(failure)) from None
                if not self.tally.answers:
                    raise Hopeless(_advice(failure.message)) from None
                raise

    def _give_up(self, item: Item, rotation: int, failure: Passing | Refused) -> None:
        """Note an item that brought no answer; raises Hopeless when that is not the item's fault."""
        self.outcome.failed[item.id] = failure.message
        if self.tally.answers:
            self._log.append(
                {
                    "kind": FAILURE,
                    "id": item.id,
                    "task": item.task,
                    "rotation": rotation,
                    "error": failure.message,
                    "at": _utc(self._clock.unix_s()),
                }
            )
        self._failures_in_a_row += 1
        if isinstance(failure, Refused):
            hopeless = self._failures_in_a_row >= MOST_REFUSALS_IN_A_ROW
        else:
            hopeless = failure.concerns_all or self._failures_in_a_row >= MOST_FAILURES_IN_A_ROW
        if not self.tally.answers:
            raise Hopeless(
                f"{_advice(failure.message)}; nothing was ever answered: check that {self._endpoint.url} is an "
                "OpenAI-compatible server that is up, or raise --timeout"
            )
        if hopeless:
            raise Hopeless(_advice(failure.message))

    async def _unknown_model(self, failure: Refused) -> str:
        names = await self._endpoint.model_names()
        model = self._endpoint.model
        if not names or model in names:
            return f"{failure.message}; check --model {model}"
        shown = ", ".join(names[:NAMES_SHOWN]) + (
            f" and {len(names) - NAMES_SHOWN} more" if names[NAMES_SHOWN:] else ""
        )
        return f"{failure.message}; the endpoint offers: {shown}"


def tally_of(
    items: Sequence[Item], protocol: Protocol, log: AnswerLog, usd_per_million_tokens: float | None = None
) -> Tally:
    """The score of a log's answers to these items; what it holds of others stays there, uncounted.

    Raises:
        DataError: an answer belongs to another text of its question.
    """
    by_id = {item.id: item for item in items}
    tally = Tally({item.id: rotation_count(item.question, protocol) for item in items}, usd_per_million_tokens)
    for record in log.answers():
        item = by_id.get(record["id"])
        if item is None:
            continue
        if record.get("question_hash") != item.question.hash:
            raise DataError(
                f"{log.path} holds an answer to another text of question {item.id!r}; bring the questions it was made "
                "with, or start over with --restart"
            )
        tally.add(record)
    return tally


def _advice(message: str) -> str:
    """The message, with the option that helps where the endpoint names what it does not like."""
    lowered = message.lower()
    for name in ("temperature", "seed", "stream_options", "max_tokens", "stop"):
        if f"'{name}'" in lowered or f'"{name}"' in lowered or f"`{name}`" in lowered or f"{name} " in lowered:
            return f"{message}; if it does not take {name}, run again with --omit {name}"
    return message


def _figures(answer: Answer) -> dict[str, Any]:
    return {
        "finish_reason": answer.finish_reason,
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "latency_s": round(answer.latency_s, 4),
    }


def _shortened(text: str) -> str:
    """At most 100,000 characters of a text, head and tail: a model that never stops must not fill the disk."""
    left_out = len(text) - LOGGED_HEAD - LOGGED_TAIL
    if left_out <= 0:
        return text
    return f"{text[:LOGGED_HEAD]}\n[... {left_out:,} characters left out ...]\n{text[-LOGGED_TAIL:]}"


def _utc(unix_s: float) -> str:
    return datetime.datetime.fromtimestamp(unix_s, datetime.timezone.utc).isoformat(timespec="milliseconds")


@contextlib.contextmanager
def _interrupts(task: asyncio.Task[Any] | None) -> Iterator[None]:
    """Let Ctrl-C cancel the task, so that it ends in order; elsewhere than in the main thread nothing changes."""
    loop = asyncio.get_running_loop()
    try:
        if task is None:
            raise RuntimeError("no task to cancel")
        loop.add_signal_handler(signal.SIGINT, task.cancel)
    except (NotImplementedError, RuntimeError, ValueError):
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
