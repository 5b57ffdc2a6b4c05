"""Choosing tiles: what is tried, what wins, and what the table looks like afterwards."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from modelsat_engine.errors import KernelError
from modelsat_engine.kernels import configs, tune
from modelsat_engine.kernels.configs import TABLE_FILE, nearest_target, read_table

CURRENT = {"block_rows": 4, "num_warps": 4, "num_stages": 1}


def test_every_choice_is_tried_once_and_the_rest_of_a_tile_is_kept() -> None:
    tried = list(tune.tiles_to_try("residual_layer_norm", CURRENT))
    assert tried[0] == CURRENT
    assert len(tried) == 4 * 3
    assert len({tuple(sorted(tile.items())) for tile in tried}) == len(tried)
    assert {tile["num_stages"] for tile in tried} == {1}


def test_the_fastest_tile_wins_only_by_more_than_noise() -> None:
    def faster(share: float) -> dict[str, int]:
        def measure(tile: dict[str, int]) -> float:
            return share if tile["block_rows"] == 8 else 1.0

        return tune.best_tile("residual_layer_norm", CURRENT, measure, lambda tile: None)[0]

    assert faster(0.99) == CURRENT
    assert faster(0.5)["block_rows"] == 8


def test_a_tile_that_cannot_run_is_passed_over_and_a_kernel_that_cannot_is_an_error() -> None:
    def measure(tile: dict[str, int]) -> float:
        return 1.0 if tile == CURRENT else math.inf

    assert tune.best_tile("residual_layer_norm", CURRENT, measure, lambda tile: None) == (CURRENT, 1.0, 1.0)
    with pytest.raises(KernelError, match="residual_layer_norm does not run on this GPU with the tile of the table"):
        tune.best_tile("residual_layer_norm", CURRENT, lambda tile: math.inf, lambda tile: None)


def test_a_tile_with_a_problem_never_wins_and_only_winners_are_asked() -> None:
    asked = []

    def measure(tile: dict[str, int]) -> float:
        return {8: 0.4, 2: 0.6}.get(tile["block_rows"], 1.0)

    def problem(tile: dict[str, int]) -> str | None:
        asked.append(tile["block_rows"])
        return "spills" if tile["block_rows"] == 8 else None

    tile, after, before = tune.best_tile("residual_layer_norm", CURRENT, measure, problem)
    assert (tile["block_rows"], after, before) == (2, 0.6, 1.0)
    assert asked == [8, 8, 8, 2]
    assert tune.best_tile("residual_layer_norm", CURRENT, measure, lambda tile: "spills") == (CURRENT, 1.0, 1.0)


def test_a_tile_that_spills_is_recognised_without_a_gpu(tmp_path: Path) -> None:
    """In a process of its own: this one has Triton's interpreter, which compiles nothing."""
    script = """
import json
from modelsat_engine.kernels import configs, tune
before = json.dumps(configs.read_table())
wide = {"block_rows": 128, "block_columns": 128, "block_k": 32, "num_warps": 4, "num_stages": 3}
small = {**wide, "block_rows": 32, "block_columns": 64}
print(json.dumps([tune.tile_problem("linear", "1536x384", tile, "sm_90") for tile in (wide, small)]))
assert json.dumps(configs.read_table()) == before
"""
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment = {**inherited, "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    wide, small = json.loads(done.stdout)
    assert "spills" in wide
    assert small is None


def test_the_table_is_written_as_it_is_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    committed = TABLE_FILE.read_text(encoding="utf-8")
    copy = tmp_path / "table.json"
    monkeypatch.setattr(tune, "TABLE_FILE", copy)
    tune.write_table(json.loads(committed))
    assert copy.read_text(encoding="utf-8") == committed
    changed = json.loads(committed)
    changed["sm_90"]["linear"] = {"1536x384": CURRENT}
    tune.write_table(changed)
    assert json.loads(copy.read_text(encoding="utf-8")) == changed


def test_a_gpu_takes_the_newest_tiles_that_are_not_newer_than_itself() -> None:
    assert nearest_target(8, 0) == nearest_target(8, 9) == "sm_80"
    assert nearest_target(9, 0) == "sm_90"
    assert nearest_target(12, 0) == "sm_100"
    assert nearest_target(7, 5) == "sm_80"


def test_sizes_of_their_own_come_before_any_and_a_gpus_before_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    table = {
        "default": {"linear": {"any": {"k": 1}, "2x2": {"k": 2}}, "linear.fp32": {"any": {"k": 3}}},
        "sm_90": {"linear": {"any": {"k": 4}}},
        "sm_80": {},
    }
    monkeypatch.setattr(configs, "read_table", lambda: table)

    def found(dtype: torch.dtype, sizes: str, target: str) -> int:
        return configs.tile("linear", dtype, sizes, target)["k"]

    assert found(torch.float16, "2x2", "sm_80") == 2
    assert found(torch.float16, "3x3", "sm_80") == 1
    assert found(torch.float16, "2x2", "sm_90") == 4
    assert found(torch.float32, "2x2", "sm_80") == found(torch.float32, "2x2", "sm_90") == 3


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    before = read_table()
    result = CliRunner().invoke(tune.main, [])
    assert result.exit_code == 1
    assert result.stderr == (
        "error: tiles are measured on the GPU that they are for, and CUDA_VISIBLE_DEVICES='' hides every GPU; "
        "run this where one is\n"
    )
    assert read_table() == before
