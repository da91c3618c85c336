"""Samples a shard: chosen from n where nobody says it, and kept in a folder that has shards."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgen import config
from diffgen.errors import UserError
from diffgen.synthesis.shards import choose_per_shard, num_shards
from tests.synthesis.helpers import run, shard_hashes

SMALL = {"size": "32", "images_per_shard": "auto"}


@given(n=st.integers(1, 10**6))
def test_eight_shards_and_no_more_than_64_samples_in_one(n: int) -> None:
    each = choose_per_shard(n)
    assert num_shards(n, each) >= min(n, 8)
    assert each <= 64
    assert each == 64 or num_shards(n, each) < 16


def test_a_small_run_has_a_shard_a_sample_and_a_larger_n_keeps_to_it(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    assert run(tiny_bundle, tmp_path, n=2, **SMALL).shards == 2
    before = shard_hashes(tmp_path)
    grown = run(tiny_bundle, tmp_path, n=17, **SMALL)  # two a shard, where it began anew
    assert (grown.made, grown.shards) == (15, 17)
    assert shard_hashes(tmp_path).items() > before.items()
    assert json.loads((tmp_path / "run.json").read_text())["images_per_shard"] == 1
    assert config.read_yaml(tmp_path / "settings.yaml")["synthesis"]["images_per_shard"] == 1


def test_samples_are_tiles_where_tiles_are_asked_for(tiny_bundle: Path, tmp_path: Path) -> None:
    done = run(tiny_bundle, tmp_path, n=1, emit="tiles", tile=32, **SMALL | {"size": "128"})
    assert done.shards == 8


def test_what_is_said_holds_and_another_number_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    assert run(tiny_bundle, tmp_path, n=3, size="32", images_per_shard=3).shards == 1
    assert run(tiny_bundle, tmp_path, n=3, **SMALL).made == 0  # as one that began when 64 was the rule
    with pytest.raises(UserError, match="images_per_shard 3 → 1"):
        run(tiny_bundle, tmp_path, n=3, size="32", images_per_shard=1)


def test_a_bundle_says_it_unless_it_is_the_default_of_its_day() -> None:
    assert config.load(under={"synthesis": {"images_per_shard": 6}}).synthesis.images_per_shard == 6
    saved = {"synthesis": {"images_per_shard": 64, "n": 9}}
    assert config.load(under=saved).synthesis.images_per_shard == "auto"
    assert config.load(under=saved).synthesis.n == 9
    assert (
        config.load(under=saved, overrides=["synthesis.images_per_shard=5"]).synthesis.images_per_shard == 5
    )
