"""An OpenAI-compatible server on loopback that answers, fails and misbehaves as a test tells it to."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One request as the server saw it; header names in lower case."""

    number: int
    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def text(self) -> str:
        """The prompt's own words."""
        return self.body["messages"][-1]["content"] if "messages" in self.body else self.body["prompt"]

    @property
    def item(self) -> str:
        """The id of the question: the tests' made-up questions begin with it."""
        found = re.match(r"(?:Question: )?\[([^\]]+)\]", self.text)
        assert found, self.text
        return found[1]


@dataclass(frozen=True)
class Says:
    """An ordinary answer."""

    text: Any
    finish_reason: str | None = "stop"
    prompt_tokens: int | None = 10
    completion_tokens: int | None = 3
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fails:
    """A status with a body."""

    status: int
    body: Any = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sends:
    """Exactly these bytes; with ``missing`` the line is cut so many bytes before the announced end."""

    content: bytes
    content_type: str = "application/json"
    missing: int = 0


@dataclass(frozen=True)
class Streams:
    """Server-sent events; ``cut`` ends the line without an end of the stream."""

    events: tuple[str, ...]
    cut: bool = False


@dataclass(frozen=True)
class Waits:
    """Nothing, until the event is set; then the line is closed."""

    until: threading.Event


Reply = Says | Fails | Sends | Streams | Waits
Script = Callable[[Asked], Reply]


class QuietServer(ThreadingHTTPServer):
    """Does not mind clients that hang up."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class FaultServer:
    """Runs a script; keeps every request it saw."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self.models = ["first-model", "second-model"]
        self._lock = threading.Lock()
        self._server = QuietServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def times_asked(self) -> Counter[str]:
        """How often each question arrived."""
        return Counter(asked.item for asked in self.asked)

    def serve(self) -> None:
        self._server.serve_forever(poll_interval=0.01)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                """Tests read requests, not logs."""

            def do_GET(self) -> None:
                names = [{"id": name, "object": "model", "created": 0, "owned_by": "test"} for name in outer.models]
                self._send(200, json.dumps({"object": "list", "data": names}).encode())

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    asked = Asked(
                        len(outer.asked), self.path, {name.lower(): value for name, value in self.headers.items()}, body
                    )
                    outer.asked.append(asked)
                try:
                    self._reply(outer.script(asked), asked)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def _reply(self, reply: Reply, asked: Asked) -> None:
                if isinstance(reply, Says):
                    self._send(200, json.dumps(completion(reply, asked)).encode())
                elif isinstance(reply, Fails):
                    text = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
                    kind = "application/json" if not isinstance(reply.body, str) else "text/html"
                    self._send(reply.status, text.encode(), reply.headers, kind)
                elif isinstance(reply, Sends):
                    self._send(200, reply.content, {}, reply.content_type, missing=reply.missing)
                elif isinstance(reply, Streams):
                    self._stream(reply)
                else:
                    reply.until.wait()
                    self.close_connection = True

            def _send(
                self,
                status: int,
                content: bytes,
                headers: dict[str, str] | None = None,
                kind: str = "application/json",
                missing: int = 0,
            ) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content) + missing))
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
                self.close_connection = bool(missing)

            def _stream(self, reply: Streams) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for event in reply.events:
                    data = f"data: {event}\n\n".encode()
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                if not reply.cut:
                    self.wfile.write(b"0\r\n\r\n")
                self.close_connection = True

        return Handler


def completion(reply: Says, asked: Asked) -> dict[str, Any]:
    """The body of an ordinary answer, for chat or completions."""
    chat = asked.path.endswith("/chat/completions")
    inner = {"message": {"role": "assistant", "content": reply.text, **reply.more}} if chat else {"text": reply.text}
    usage = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
    return {
        "id": "x",
        "object": "chat.completion" if chat else "text_completion",
        "created": 0,
        "model": asked.body["model"],
        "choices": [{"index": 0, "finish_reason": reply.finish_reason, **inner}],
        **({} if reply.prompt_tokens is None else {"usage": usage}),
    }


def stream_of(*pieces: str, finish_reason: str | None = "stop", usage: bool = True) -> tuple[str, ...]:
    """The events of a chat answer that comes in pieces."""
    head = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m"}
    events = [{**head, "choices": [{"index": 0, "delta": {"content": p}, "finish_reason": None}]} for p in pieces]
    if finish_reason:
        events.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason}]})
    if usage:
        events.append({**head, "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}})
    return (*map(json.dumps, events), *(["[DONE]"] if finish_reason else []))


@contextmanager
def serving(script: Script) -> Iterator[FaultServer]:
    """A running server."""
    server = FaultServer(script)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()
