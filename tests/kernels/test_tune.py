"""Choosing tiles: what is tried, what wins, and what the table looks like afterwards."""

from __future__ import annotations

import json
import math
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
        return tune.best_tile("residual_layer_norm", CURRENT, lambda tile: share if tile["block_rows"] == 8 else 1.0)[0]

    assert faster(0.99) == CURRENT
    assert faster(0.5)["block_rows"] == 8


def test_a_tile_that_cannot_run_is_passed_over_and_a_kernel_that_cannot_is_an_error() -> None:
    def measure(tile: dict[str, int]) -> float:
        return 1.0 if tile == CURRENT else math.inf

    assert tune.best_tile("residual_layer_norm", CURRENT, measure) == (CURRENT, 1.0, 1.0)
    with pytest.raises(KernelError, match="residual_layer_norm does not run on this GPU with the tile of the table"):
        tune.best_tile("residual_layer_norm", CURRENT, lambda tile: math.inf)


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
