import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from diffgen import config
from diffgen.errors import UserError
from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.synthesis.given import class_table, read_masks, scaled

LABELS = Labels(("unknown", "stroma", "gland", "lumen"))


@pytest.fixture(scope="module")
def facts(tiny_bundle: Path) -> bundle.GeneratorConfig:
    return bundle.load(tiny_bundle, weights=False).facts


def given(
    folder: Path, facts: bundle.GeneratorConfig, console: Console | None = None, **said: object
) -> dict[str, np.ndarray]:
    read, sizes = read_masks(folder, config.Synthesis.model_validate(said), facts, LABELS, console)
    maps = {name: np.asarray(Image.open(io.BytesIO(data))) for name, data in read}
    assert tuple(label_map.shape for label_map in maps.values()) == sizes
    return maps


def quarters(*values: int, dtype: type = np.uint8) -> np.ndarray:
    """(32, 32): four squares of these values."""
    return np.kron(np.array(values, dtype).reshape(2, 2), np.ones((16, 16), dtype))


def test_values_of_another_data_set(tmp_path: Path, facts: bundle.GeneratorConfig) -> None:
    Image.fromarray(quarters(7, 300, 12, 0, dtype=np.uint16)).save(tmp_path / "a.png")
    out = io.StringIO()
    maps = given(tmp_path, facts, Console(file=out, width=200), mask_classes={7: "Gland", 300: 1})
    assert np.array_equal(maps["a.png"], quarters(2, 1, 0, 0))
    assert "unknown: 12\n" in out.getvalue()


def test_colours_of_another_data_set(tmp_path: Path, facts: bundle.GeneratorConfig) -> None:
    colours = np.array([[255, 0, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0]], np.uint8)
    Image.fromarray(colours[quarters(0, 1, 2, 3)]).save(tmp_path / "a.bmp")
    maps = given(tmp_path, facts, mask_classes={"#ff0000": "gland", "blue": "stroma"})
    assert np.array_equal(maps["a.bmp"], quarters(2, 1, 0, 0))


@pytest.mark.parametrize("factor", [0.25, 0.4, 1.0, 1.5, 2.0])
def test_scaled_is_the_nearest_pixel(factor: float) -> None:
    label_map = np.random.default_rng(0).integers(0, 9, (37, 53)).astype(np.uint8)
    found = scaled(label_map, factor, 4)
    assert found.shape == (int(37 * factor) // 4 * 4, int(53 * factor) // 4 * 4)
    for y, x in np.ndindex(found.shape):
        assert found[y, x] == label_map[int((y + 0.5) / factor), int((x + 0.5) / factor)]


def test_maps_of_another_scale(tmp_path: Path, facts: bundle.GeneratorConfig) -> None:
    label_map = np.kron(np.random.default_rng(0).integers(0, 4, (33, 35)), np.ones((2, 2))).astype(np.uint8)
    Image.fromarray(label_map).save(tmp_path / "a.png")
    maps = given(tmp_path, facts, mask_mpp=facts.mpp / 2)
    assert np.array_equal(maps["a.png"], label_map[:64:2, :64:2]), "cut to the latent grid"


def test_what_a_table_cannot_be() -> None:
    wrong: list[tuple[dict[int | str, int | str], str]] = [
        ({1: "gut"}, r"'gut' is no class; the bundle has unknown, stroma"),
        ({1: 9}, "9 is no class"),
        ({"reddish": 1}, "'reddish' is no value and no colour"),
        ({"#ff0000": 1, 2: 1}, "either values or colours"),
    ]
    for said, message in wrong:
        with pytest.raises(UserError, match=message):
            class_table(said, LABELS)
    assert class_table({}, LABELS) is None
    assert class_table({"3": "lumen"}, LABELS).ids == {3: 3}  # type: ignore[union-attr]
