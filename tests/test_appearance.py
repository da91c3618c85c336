from pathlib import Path

import numpy as np
import pytest
from skimage.color import rgb2hed

from diffgen.appearance import FILE, NAMES, Appearance, measure
from diffgen.errors import UserError


def picture(red: int, green: int, blue: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(-10, 10, (64, 64, 3))
    return np.clip(np.array([red, green, blue]) + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def table() -> Appearance:
    rng = np.random.default_rng(0)
    raw = rng.normal(3, 2, (200, len(NAMES))).astype(np.float32)
    contexts = np.repeat([1, 2], 100)
    raw[100:] += 20
    return Appearance.fit(raw, contexts)


def test_a_stronger_stain_measures_stronger() -> None:
    pale, dark = measure(picture(200, 170, 210)), measure(picture(110, 60, 150))
    names = dict(zip(NAMES, range(len(NAMES)), strict=True))
    assert dark[names["haematoxylin"]] > pale[names["haematoxylin"]]
    assert dark[names["brightness"]] < pale[names["brightness"]]


def test_lumen_says_nothing_of_a_stain() -> None:
    tissue = picture(160, 90, 170)
    with_lumen = np.concatenate([tissue, np.full_like(tissue, 250)])
    assert np.allclose(measure(tissue), measure(with_lumen))


def test_glass_alone_is_measured_as_a_whole() -> None:
    assert np.isfinite(measure(np.full((32, 32, 3), 250, np.uint8))).all()


def test_vectors_are_standardised_and_back(table: Appearance) -> None:
    assert np.allclose(table.vectors.mean(0), 0, atol=1e-4)
    assert np.allclose(table.vectors.std(0), 1, atol=1e-4)
    assert np.allclose(table.standardized(table.raw(table.vectors)), table.vectors, atol=1e-4)
    assert list(table.named(table.vectors[0])) == list(NAMES)


def test_a_draw_is_like_the_context_and_nobodys_own(table: Appearance) -> None:
    drawn = np.stack([table.draw(np.random.default_rng(k), 2) for k in range(50)])
    assert (drawn.mean(1) > 0.5).all()
    nearest = np.abs(drawn[:, None] - table.vectors[None]).max(-1).min(1)
    assert (nearest > 0).all()
    everyone = np.stack([table.draw(np.random.default_rng(k)) for k in range(200)])
    assert abs(everyone.mean()) < 0.3


def test_saved_and_loaded(table: Appearance, tmp_path: Path) -> None:
    assert Appearance.load(tmp_path) is None
    table.save(tmp_path)
    again = Appearance.load(tmp_path)
    assert again is not None
    assert all(np.array_equal(getattr(again, name), value) for name, value in vars(table).items())
    (tmp_path / FILE).write_bytes(b"nothing")
    with pytest.raises(UserError, match=FILE):
        Appearance.load(tmp_path)


def test_stains_are_those_of_skimage() -> None:
    picture = np.random.default_rng(0).integers(0, 200, (40, 30, 3), dtype=np.uint8)
    stains = rgb2hed(picture).reshape(-1, 3) * 100
    expected = np.stack([stains.mean(axis=0), stains.std(axis=0)], axis=1).reshape(-1)
    np.testing.assert_allclose(measure(picture)[:6], expected, rtol=1e-4)
