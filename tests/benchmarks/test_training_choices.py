"""The figures of large canvases tell order from disorder, and the rows cost the same."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import canvases, tissue, training_choices
from diffgen import config
from diffgen.evaluation.structure import correlation


def pictures(spread: int, seed: int = 0) -> np.ndarray:
    """(20, 256, 256, 3): blocks of one tone, `spread` pixels wide."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 255, (20, 256 // spread, 256 // spread, 1), dtype=np.uint8)
    return blocks.repeat(spread, 1).repeat(spread, 2).repeat(3, 3)


def test_correlation_ends_where_the_blocks_end() -> None:
    weights = np.ones((1, 20))
    found = correlation(canvases.luminance_moments(pictures(32)), weights)[0]
    for lag, value in zip(canvases.LAGS, found, strict=True):
        assert value == pytest.approx(max(0, 1 - lag / 32), abs=0.1)


def test_tones_that_differ_between_pictures_are_order_at_all_distances() -> None:
    found = correlation(canvases.luminance_moments(pictures(256)), np.ones((1, 20)))
    assert found == pytest.approx(1)


@pytest.mark.parametrize("step", [0.0, 1.0])
def test_a_seam_shows_where_owners_meet(step: float) -> None:
    rng = np.random.default_rng(0)
    real = rng.standard_normal((8, 3, 32, 32)).astype(np.float32)
    owner = np.kron(np.arange(16).reshape(4, 4), np.ones((8, 8), int)).astype(np.int32)
    drawn = rng.standard_normal((8, 3, 32, 32)).astype(np.float32) + step * (owner % 2)
    found = canvases.seam(*(canvases.jumps(x, [owner] * 8) for x in (drawn, real)), np.ones((1, 8)))[0]
    assert found == pytest.approx(1 + step * 0.25, abs=0.08)


def test_crops_lie_in_the_quarters_of_a_canvas() -> None:
    values = pictures(128)
    whole = tissue.Tissue(values, values[..., 0], np.arange(20))
    found = canvases.patches_of(whole, 64)
    assert found.pictures.shape == (80, 64, 64, 3)
    for k in range(80):
        assert len(np.unique(found.pictures[k])) == 1
        assert found.source[k] == k % 20
        quarter = values[k % 20][128 * (k // 40) + 64, 128 * (k // 20 % 2) + 64, 0]
        assert found.pictures[k, 0, 0, 0] == found.maps[k, 0, 0] == quarter


def test_a_wide_crop_costs_four_where_noise_is_high() -> None:
    tree = config.merge(config.read_yaml(config.preset("nuclei")), training_choices.SETTINGS)
    wide = config.validate(tree)
    fixed = config.load(None, ["image_model.context=fixed"], tree)
    assert training_choices.cost_per_sample(fixed) == 1
    assert training_choices.cost_per_sample(wide) == pytest.approx(1.5, abs=0.05)
    assert wide.image_model.sides == ((-2.0, 32), (None, 16))


@pytest.mark.parametrize("row", training_choices.ROWS, ids=lambda row: row.name)
def test_each_row_is_a_valid_change_of_one_thing(row: training_choices.Row) -> None:
    tree = config.merge(config.read_yaml(config.preset("nuclei")), training_choices.SETTINGS)
    changed = config.differences(
        config.validate(tree).model_dump(), config.load(None, row.change, tree).model_dump()
    )
    assert len(changed) == len(row.change) <= 1


def test_a_row_that_is_trained_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    data.mkdir()
    tree = config.merge(config.read_yaml(config.preset("nuclei")), training_choices.SETTINGS)
    (data / "settings.yaml").write_text(config.validate(tree).dump())
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(training_choices, "diffgen", lambda *words: calls.append(words))
    row = training_choices.Row("fixed crops", ("image_model.context=fixed",))
    folder, steps = training_choices.trained(row, data, tmp_path, 900)
    assert steps == pytest.approx(900 * 1.5, rel=0.03)
    assert f"training.image.steps={steps}" in calls[0]
    assert calls[0][calls[0].index("--run") + 1] == "fixed-crops"
    folder.mkdir(parents=True)
    (folder / "model_index.json").touch()
    training_choices.trained(row, data, tmp_path, 900)
    assert len(calls) == 1


def test_alike_canvases_are_judged_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_choices, "RESAMPLES", 20)
    maps = (pictures(16, 1)[..., 0] > 128).astype(np.uint8) + 1
    noise = pictures(16, 2) // 8
    real = tissue.Tissue(
        noise + np.where(maps == 2, 80, 180).astype(np.uint8)[..., None], maps, np.arange(20)
    )

    def features(images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1)[:, ::997].astype(float) / 255

    judge = training_choices.Judge(real, 64, 2, features)
    same, other = judge(real.pictures), judge(noise + np.uint8(120))
    assert same["correlation_largest"].value == 0
    assert same["nuclei"].value == pytest.approx(1)
    assert other["nuclei"].value == pytest.approx(0, abs=0.1)
    assert abs(same["kid_canvas"].value) < other["kid_canvas"].value
