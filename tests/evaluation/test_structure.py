"""What is measured of large images is what a loop would count, and is right where the answer is known."""

import numpy as np
import pytest

from diffgen.evaluation import structure

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (5, 24, 20, 3), np.uint8)
WEIGHTS = np.vstack([np.ones(5), RNG.integers(0, 4, (3, 5))])


def test_jumps_are_those_of_a_loop() -> None:
    picture = PICTURES[0].astype(float)
    wanted = np.zeros(4)
    for y in range(24):
        for x in range(20):
            for ny, nx in ((y + 1, x), (y, x + 1)):
                if ny < 24 and nx < 20:
                    at = 0 if (ny % 8 == 0 and ny != y) or (nx % 8 == 0 and nx != x) else 2
                    wanted[at] += ((picture[y, x] - picture[ny, nx]) ** 2).mean()
                    wanted[at + 1] += 1
    found = structure.jumps(PICTURES[0].transpose(2, 0, 1), structure.lines(24, 20, 8))
    assert found == pytest.approx(wanted, rel=1e-9)
    several = np.stack([wanted, 2 * wanted + [1, 0, 0, 0]])
    ratios = structure.seam_ratio(several, np.array([[1, 1], [3, 0]]))
    total = several.sum(axis=0)
    assert ratios[0] == pytest.approx(total[0] / total[1] / (total[2] / total[3]))
    assert ratios[1] == pytest.approx(wanted[0] / wanted[1] / (wanted[2] / wanted[3]))


def test_an_image_of_one_patch_has_no_lines() -> None:
    assert structure.jumps(np.ones((1, 8, 8)), structure.lines(8, 8, 8))[1] == 0


@pytest.mark.parametrize("block", [4, 8])
def test_blocks_of_a_codec_are_no_seams_and_tiles_are(block: int) -> None:
    blocks = RNG.standard_normal((20, 1, 128 // block, 128 // block))
    smooth = np.kron(blocks, np.ones((block, block))) + 0.1 * RNG.standard_normal((20, 1, 128, 128))
    tiled = smooth + np.kron(RNG.standard_normal((20, 1, 2, 2)), 2 * np.ones((64, 64)))
    at = structure.patch_lines(128, 64)
    for pictures, low, high in ((smooth, 0.8, 1.25), (tiled, 3.0, 9.0)):
        found = np.stack([structure.jumps(picture, *at) for picture in pictures])
        assert low < structure.seam_ratio(found, np.ones((1, 20)))[0] < high
    everywhere = np.stack([structure.jumps(picture, at[0]) for picture in smooth])
    assert structure.seam_ratio(everywhere, np.ones((1, 20)))[0] > 2  # all of it: what was guarded against


def test_correlation_is_that_of_a_loop() -> None:
    lags = (1, 3, 7)
    grey = PICTURES @ np.array([0.299, 0.587, 0.114]) / 255
    found = structure.correlation(np.stack([structure.moments(p, lags) for p in PICTURES]), WEIGHTS)
    for row, weights in zip(found, WEIGHTS, strict=True):
        pool = np.concatenate([grey[k] for k in range(5) for _ in range(int(weights[k]))])
        mean, variance = pool.mean(), pool.var()
        for value, lag in zip(row, lags, strict=True):
            products = []
            for k in range(5):
                down = [grey[k, y, x] * grey[k, y + lag, x] for y in range(24 - lag) for x in range(20)]
                along = [grey[k, y, x] * grey[k, y, x + lag] for y in range(24) for x in range(20 - lag)]
                products += [(np.mean(down) + np.mean(along)) / 2] * int(weights[k])
            assert value == pytest.approx((np.mean(products) - mean**2) / variance, abs=1e-9)


def test_blocks_are_those_of_a_loop() -> None:
    found = structure.block_densities(PICTURES[0])
    density = -np.log10((PICTURES[0].astype(float) + 1) / 256)
    for i in range(4):
        for j in range(4):
            block = density[6 * i : 6 * i + 6, 5 * j : 5 * j + 5].reshape(-1, 3)
            assert found[i, j] == pytest.approx(block.mean(axis=0), abs=1e-9)


def test_drift_is_that_of_a_loop() -> None:
    d = np.stack([structure.block_densities(p) for p in PICTURES])
    maps = [one - one.mean(axis=(0, 1)) for one in d]
    assert structure.mean_map(d) == pytest.approx(sum(maps) / 5, abs=1e-9)
    drift, alike = structure.drift(d, WEIGHTS), structure.systematic(d, WEIGHTS)
    for row, weights in enumerate(WEIGHTS):
        chosen = [k for k in range(5) for _ in range(int(weights[k]))]
        within = between = square = variance = 0.0
        for c in range(3):
            means = [d[k, ..., c].mean() for k in chosen]
            within += np.mean([d[k, ..., c].var() for k in chosen])
            between += np.var(means)
            for i in range(4):
                for j in range(4):
                    values = [d[k, i, j, c] - d[k, ..., c].mean() for k in chosen]
                    square += np.mean(values) ** 2
                    variance += np.var(values, ddof=1)
        assert drift[row] == pytest.approx((within / between) ** 0.5, abs=1e-9)
        assert alike[row] == pytest.approx(len(chosen) * square / variance, abs=1e-9)


def test_by_chance_maps_are_alike_once() -> None:
    rng = np.random.default_rng(0)
    found = [
        structure.systematic(rng.standard_normal((12, 4, 4, 3)), np.ones((1, 12)))[0] for _ in range(200)
    ]
    assert np.mean(found) == pytest.approx(1, abs=0.05)
