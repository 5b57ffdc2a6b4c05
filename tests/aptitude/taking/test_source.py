"""The questions of the shipped test come from a file, or from the public data set that its ids name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelsat_engine.aptitude.taking.source import PUBLIC_SETS, find_questions
from modelsat_engine.errors import DataError
from modelsat_engine.export.bundle import Bundle
from tests.aptitude.taking.made_up import make_questions, make_test, write_questions

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FIND = """
import json, sys
from modelsat_engine.aptitude import AptitudeTask, AptitudeTest
from modelsat_engine.aptitude.taking.source import find_questions
from modelsat_engine.errors import DataError
test = AptitudeTest((AptitudeTask("t", ("k",), ("mmlu_pro/70", "mmlu_pro/71")),))
said = []
try:
    print(json.dumps({"ids": [question.id for question in find_questions(test, None, said.append)], "said": said}))
except DataError as error:
    print(json.dumps({"error": str(error)}))
"""


def test_a_file_is_read(tmp_path: Path) -> None:
    questions = make_questions(make_test())
    assert find_questions(make_test(), str(write_questions(tmp_path / "q.jsonl", questions))) == questions


def test_without_a_file_a_test_of_ones_own_says_how_to_bring_it() -> None:
    with pytest.raises(DataError, match="--questions FILE, or the environment variable MODELSAT_QUESTIONS"):
        find_questions(make_test(), None)


def test_the_shipped_test_names_a_set_that_is_known() -> None:
    heads = {item.partition("/")[0] + "/" for item in Bundle.load().aptitude_test.item_ids}
    assert heads <= PUBLIC_SETS.keys()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    """A hub on loopback that has one made-up file in the place of the public one."""
    rows = {
        "question_id": [70, 71],
        "question": ["Which is first?", "Which is last?"],
        "options": [["x", "y"], ["x", "y", "z"]],
        "answer": ["A", "C"],
        "answer_index": [0, 2],
        "category": ["order", "order"],
    }
    pq.write_table(pa.table(rows), tmp_path / "hub.parquet")
    content = (tmp_path / "hub.parquet").read_bytes()

    class Hub(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """The test looks at the outcome."""

        def do_HEAD(self) -> None:
            there = self.path == "/datasets/TIGER-Lab/MMLU-Pro/resolve/main/data/test-00000-of-00001.parquet"
            self.send_response(200 if there else 404)
            self.send_header("ETag", '"made-up"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def find(home: Path, endpoint: str) -> dict[str, object]:
    environment = {**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": endpoint, "NO_PROXY": "127.0.0.1"}
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run([sys.executable, "-c", FIND], env=environment, capture_output=True, timeout=60, check=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_the_public_set_is_fetched_once(tmp_path: Path, hub: str) -> None:
    ids = ["mmlu_pro/70", "mmlu_pro/71"]
    first = find(tmp_path / "home", hub)
    assert first["ids"] == ids
    assert "MIT licence" in first["said"][0]  # type: ignore[index]
    assert find(tmp_path / "home", "http://nowhere.invalid") == {"ids": ids, "said": []}


def test_without_a_network_the_error_says_what_to_download(tmp_path: Path) -> None:
    error = str(find(tmp_path / "home", "http://nowhere.invalid")["error"])
    assert "no network" in error
    assert "test-00000-of-00001.parquet from https://huggingface.co/datasets/TIGER-Lab/MMLU-Pro" in error
    assert "--questions FILE, or set MODELSAT_QUESTIONS=FILE" in error
