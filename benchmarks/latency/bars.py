"""What a fast executor is asked beyond its latency: large zoos, one forward per candidate, load time, a busy GIL."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from latency.contenders import NATIVE, ONNXRUNTIME_FP32, Call, Contender, padded_feeds
from latency.material import Material
from latency.pairing import summarise, take_turns
from modelsat_engine import Engine
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.candidate_table import EncodedCandidates
from modelsat_engine.runtime.instruction import InstructionTokenizer

SEQ = 64
LOOP_CANDIDATES = 20
#: The paper's performance inquiry, which a loop over candidates puts behind the instruction.
INQUIRY = "predict whether the model can handle the instruction by indicating 'Yes' or 'No'"


def zoo_size(contenders: list[Contender], material: Material, seconds: float) -> dict[str, Any]:
    """Cost of 100 candidates against one, for each contender by itself."""
    instructions = material.instructions(SEQ, 1)
    found = {}
    for contender in contenders:
        calls = {f"M={count}": contender.prepare(instructions, material.candidates(count)) for count in (1, 100)}
        found[contender.name] = summarise(take_turns(calls, seconds), "M=1")["M=100"]
    return found


def one_forward_per_candidate(
    bundle: Bundle, contenders: list[Contender], material: Material, seconds: float
) -> dict[str, Any]:
    """One pass over 20 candidates against a loop that runs one forward for each, in the same runtime.

    The loop's sequence is that of the public Model-SAT code with one capability token: the instruction, the inquiry's
    text, and the capability's row. In torch every layer runs whole and sees everything, as there; the other runtimes
    run the same rows through the one-pass graph with one candidate, which spares them the last layer's prefix.
    """
    tokenizer = InstructionTokenizer.from_file(bundle.file("tokenizer.json"), 512)
    inquiry = np.array(tokenizer.text_token_ids(INQUIRY, 512, special_tokens=False), np.int32)
    instruction = material.instructions(SEQ, 1)[0]
    zoo = material.candidates(LOOP_CANDIDATES)
    each = [zoo.rows(slice(m, m + 1)) for m in range(LOOP_CANDIDATES)]
    prompt = np.concatenate([instruction, inquiry])
    found: dict[str, Any] = {"inquiry_tokens": len(inquiry), "candidates": LOOP_CANDIDATES}
    for contender in contenders:
        if contender.name == "torch_eager":
            loop = _torch_loop(bundle, prompt, each)
        elif contender.name in (NATIVE, ONNXRUNTIME_FP32, "onnxruntime_int8"):
            loop = _loop([contender.prepare([prompt], one) for one in each])
        else:
            continue
        calls: dict[str, Callable[[], object]] = {"one_pass": contender.prepare([instruction], zoo), "loop": loop}
        found[contender.name] = summarise(take_turns(calls, seconds, min_rounds=3), "one_pass")["loop"]
    return found


def _loop(calls: list[Call]) -> Callable[[], object]:
    return lambda: [call() for call in calls]


def _torch_loop(bundle: Bundle, prompt: np.ndarray, each: list[EncodedCandidates]) -> Callable[[], object]:
    """The uncut layout from the first layer on, a forward for each candidate; without memory and relevance head."""
    import torch

    from modelsat_engine.export.network import network_of
    from modelsat_engine.model.network import ConnectedZoo

    network = network_of(bundle, layout="capability_first", inject_at=0, relevance_hidden=0, refinement_axes=0)
    feeds = padded_feeds([prompt], each[0])
    ids, mask = torch.from_numpy(feeds["input_ids"]), torch.from_numpy(feeds["attention_mask"])
    hidden = network.config.trunk.hidden
    zoos = [ConnectedZoo(torch.from_numpy(np.array(one.inquiry_start[..., :hidden]))) for one in each]

    def loop() -> list[object]:
        with torch.inference_mode():
            return [network.score_zoo(ids, mask, zoo) for zoo in zoos]

    return loop


_LOAD = """
import time
from modelsat_engine import _core
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.executors import available_executors, create_executor
bundle = Bundle.load({path!r})
available_executors()
wall, cpu = time.perf_counter(), time.process_time()
create_executor({name!r}, bundle, 1)
print((time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3)
"""


def load_time(bundle: Bundle, names: list[str], repeats: int = 5) -> dict[str, Any]:
    """How long making an executor over a checked bundle takes, each time in a fresh process; files cached."""
    taken: dict[str, list[list[float]]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            code = _LOAD.format(path=str(bundle.path), name=name)
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            taken[name].append([float(value) for value in done.stdout.split()])
    median = {name: np.median(values, axis=0) for name, values in taken.items()}
    return {
        name: {"n": repeats, "wall_ms_p50": round(float(wall), 1), "cpu_ms_p50": round(float(cpu), 1)}
        for name, (wall, cpu) in median.items()
    }


@contextmanager
def _busy_thread() -> Iterator[None]:
    """A Python thread that never lets go of the GIL of its own accord."""
    stop = threading.Event()

    def spin() -> None:
        count = 0
        while not stop.is_set():
            count += 1

    thread = threading.Thread(target=spin, name="busy")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def beside_a_busy_thread(bundle: Bundle, executor: str, seconds: float) -> dict[str, Any]:
    """Requests through the Engine, one at a time, alone and beside a busy Python thread, in turns.

    Two clocks: ``engine`` is from submission to answer inside the engine (queue and execution), ``caller`` is what the
    calling Python thread sees. The caller itself has to get the GIL back, for which Python makes it wait up to
    ``sys.getswitchinterval()`` every time; no executor can change that.
    """
    text = "Why does ice float on water although most solids sink in their own liquid? " * 4
    inside: dict[bool, list[float]] = {False: [], True: []}
    caller: dict[bool, list[float]] = {False: [], True: []}

    def requests(engine: Engine, busy: bool, until: float) -> None:
        while time.perf_counter() < until:
            timing = engine.route(text).timing_us
            inside[busy].append(timing["queue"] + timing["execute"])
            caller[busy].append(timing["total"])

    with Engine.load(bundle, executor=executor, threads=1) as engine:
        engine.warmup()
        turns = max(4, int(seconds))
        for turn in range(turns):
            busy = turn % 2 == 1
            if busy:
                with _busy_thread():
                    requests(engine, busy, time.perf_counter() + seconds / turns)
            else:
                requests(engine, busy, time.perf_counter() + seconds / turns)
    result: dict[str, Any] = {"switch_interval_ms": sys.getswitchinterval() * 1e3, "cpus": len(os.sched_getaffinity(0))}
    for clock, values in (("engine", inside), ("caller", caller)):
        alone, beside = (_percentiles_ms(values[busy]) for busy in (False, True))
        result[clock] = {"alone": alone, "busy": beside, "p99_ratio": round(beside["p99_ms"] / alone["p99_ms"], 3)}
    return result


def _percentiles_ms(values_us: list[float]) -> dict[str, Any]:
    return {
        "n": len(values_us),
        **{f"p{q}_ms": round(float(np.percentile(values_us, q)) / 1e3, 3) for q in (50, 90, 99)},
    }
