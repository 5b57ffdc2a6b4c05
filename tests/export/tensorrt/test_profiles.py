"""Profiles and buckets: what an engine takes, and the shape that a batch is padded to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsat_engine.errors import BundleError, ExecutorError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.export.tensorrt.profiles import (
    Bucket,
    Profile,
    RouterSizes,
    bucket_for,
    profile_index,
    standard_profiles,
    token_edges,
    usual_buckets,
)

SIZES = RouterSizes(512, (2, 440), (2, 3, 2, 51, 384))
PROFILES = standard_profiles(SIZES)


def test_the_shipped_router_has_a_profile_for_every_length_and_one_for_many() -> None:
    profiles = standard_profiles(RouterSizes.of(Bundle.load().config))
    assert [profile.name for profile in profiles] == [
        "latency-16",
        "latency-32",
        "latency-64",
        "latency-128",
        "latency-256",
        "throughput",
    ]
    assert {profile.requests.largest for profile in profiles[:-1]} == {1}
    assert (profiles[-1].requests.largest, profiles[-1].tokens.largest) == (64, 256)
    assert profiles[2].shapes(RouterSizes(256, (1, 440), ())) == {
        "input_ids": ((1, 1), (1, 64), (1, 64)),
        "attention_mask": ((1, 1), (1, 64), (1, 64)),
        "inquiry_start": ((1, 1, 440), (16, 1, 440), (512, 1, 440)),
    }


def test_latency_profiles_end_at_512_tokens_or_at_what_the_router_reads() -> None:
    def latency(longest: int) -> list[int]:
        return [profile.tokens.largest for profile in standard_profiles(RouterSizes(longest, (1, 8), ()))[:-1]]

    assert latency(512) == [16, 32, 64, 128, 256, 512]
    assert latency(80) == [16, 32, 64, 80]
    assert latency(9) == [9]
    assert latency(2000) == [16, 32, 64, 128, 256, 512, 2000]


def test_memory_is_an_input_with_the_zoo_as_its_first_axis() -> None:
    shapes = PROFILES[-1].shapes(SIZES)
    assert [shape[1:] for shape in shapes["memory"]] == [(2, 3, 2, 51, 384)] * 3
    assert [shape[0] for shape in shapes["memory"]] == [1, 16, 256]


def test_a_profile_survives_its_file() -> None:
    assert [Profile.from_json(profile.as_json()) for profile in PROFILES] == list(PROFILES)


@given(requests=st.integers(1, 64), tokens=st.integers(1, 512), candidates=st.integers(1, 256))
def test_every_pass_has_the_smallest_bucket_that_holds_it(requests: int, tokens: int, candidates: int) -> None:
    bucket = bucket_for(PROFILES, requests, tokens, candidates)
    assert requests <= bucket.requests < 2 * requests or bucket.requests == 1
    assert tokens <= bucket.tokens <= max(16, 2 * tokens)
    assert candidates <= bucket.candidates <= max(16, 2 * candidates)
    profile = PROFILES[profile_index(PROFILES, bucket)]
    assert profile.holds(bucket.requests, bucket.tokens, bucket.candidates)
    assert profile.name.startswith("latency") == (requests == 1)


def test_a_single_short_instruction_runs_under_the_profile_of_its_own_length() -> None:
    names = [PROFILES[profile_index(PROFILES, bucket_for(PROFILES, 1, n, 10))].name for n in (1, 16, 17, 200, 512)]
    assert names == ["latency-16", "latency-16", "latency-32", "latency-256", "latency-512"]


@pytest.mark.parametrize(
    ("shape", "named"),
    [((65, 5, 5), "65 x 5 tokens over 5"), ((1, 513, 5), "1 x 513 tokens"), ((3, 3, 257), "over 257 candidates")],
)
def test_a_shape_outside_every_profile_is_an_error_that_names_both(shape: tuple[int, int, int], named: str) -> None:
    with pytest.raises(ExecutorError, match=named) as raised:
        bucket_for(PROFILES, *shape)
    assert "throughput up to 64 x 512 tokens over 256 candidates" in str(raised.value)
    assert str(raised.value).endswith("build it anew: modelsat export --to tensorrt")


def test_all_buckets_of_a_zoo_are_prepared_and_no_request_finds_another() -> None:
    prepared = set(usual_buckets(PROFILES, 10))
    assert len(prepared) == 7 * 6
    for requests in range(1, 65):
        for tokens in (1, 16, 17, 100, 512):
            assert bucket_for(PROFILES, requests, tokens, 10) in prepared
    assert min(prepared) == Bucket(1, 16, 16)


def test_edges_double_and_end_at_the_longest() -> None:
    assert token_edges(128) == [16, 32, 64, 128]
    assert token_edges(100) == [16, 32, 64, 100]
    assert token_edges(3) == [3]


def test_a_router_without_sizes_is_a_bundle_error() -> None:
    with pytest.raises(BundleError, match=r"router\.json lacks 'memory_rows'"):
        RouterSizes.of({"views": 1})
