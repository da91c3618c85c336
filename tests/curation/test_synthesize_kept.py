"""`diffgen synthesize --filter`: others are drawn for what is left out, the same ones whatever was there."""

from pathlib import Path

import pytest
from rich.console import Console

from diffgen import config
from diffgen.curation.curate import filtered, synthesize_kept
from diffgen.errors import IncompleteError, UserError
from diffgen.export.shard_set import ShardSet
from diffgen.labels import Labels
from diffgen.synthesis import driver
from tests.evaluation.painted import painted

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def real(labels: Labels, tmp_path_factory: pytest.TempPathFactory) -> str:
    where = painted(tmp_path_factory.mktemp("real") / "real", 24, 1).images.where
    labels.save(Path(where) / "labels.json")
    return where


def settings_of(tiny: config.Settings, **changed: object) -> config.Settings:
    """Images that are a little alike are taken for repeats, so that some are."""
    more = {"synthesis": {"n": 4, "images_per_shard": "auto"}}
    more["filter"] = {"checks": ["duplicates"], "duplicate": 0.1, "attempts": 6, **changed}
    return config.validate(config.merge(tiny.model_dump(mode="json"), more))


def keys(out: Path) -> list[str]:
    kept = ShardSet(filtered(str(out)))
    return [kept.place(k).key for k in range(len(kept))]


def test_others_are_drawn_for_what_is_left_out(
    tiny_bundle: Path, tiny: config.Settings, real: str, tmp_path: Path
) -> None:
    settings = settings_of(tiny)
    out, other = tmp_path / "out", tmp_path / "other"
    done, where = synthesize_kept(tiny_bundle, str(out), real, settings, None, True, QUIET)
    assert where == filtered(str(out))
    first = keys(out)
    assert len(first) == 4
    assert first[0] == "000000000"
    drawn = len(ShardSet(str(out)))
    assert 4 < drawn <= 24
    assert done.already > 0
    # A folder that holds more, begun otherwise, comes to the same; and so does the same command again.
    many = settings.model_copy(update={"synthesis": settings.synthesis.model_copy(update={"n": drawn + 2})})
    driver.synthesize(tiny_bundle, str(other), many, None, True, QUIET)
    for place in (other, out):
        synthesize_kept(tiny_bundle, str(place), real, settings, None, True, QUIET)
        assert keys(place) == first
    whole, kept = ShardSet(str(out)), ShardSet(filtered(str(out)))
    places = {whole.place(k).key: k for k in range(len(whole))}
    assert [kept.file(k, "png") for k in range(4)] == [whole.file(places[key], "png") for key in first]


def test_the_attempts_have_an_end_that_is_said(
    tiny_bundle: Path, tiny: config.Settings, real: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(
        IncompleteError, match=r"of 4 kept: 4 were drawn, and filter\.attempts=1 allows no more"
    ):
        synthesize_kept(tiny_bundle, str(out), real, settings_of(tiny, attempts=1), None, True, QUIET)
    assert 0 < len(keys(out)) < 4


def test_tiles_are_not_filtered_at_once(
    tiny_bundle: Path, tiny: config.Settings, real: str, tmp_path: Path
) -> None:
    settings = settings_of(tiny)
    tiles = settings.synthesis.model_copy(update={"emit": "tiles", "tile": 16})
    with pytest.raises(UserError, match="--filter judges whole images"):
        synthesize_kept(
            tiny_bundle, str(tmp_path / "out"), real, settings.model_copy(update={"synthesis": tiles}),
            None, True, QUIET,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()
