"""What `--dry-run` foretells is what a run takes."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from diffgen.models import bundle
from diffgen.synthesis.forecast import Forecast, forecast
from diffgen.synthesis.plan import make_plan
from tests.synthesis.helpers import run, settings


def foretold(folder: Path, n: int, masks: Path | None = None, **sampling: object) -> Forecast:
    packed = bundle.pack(folder)
    plan = make_plan(packed, folder, settings(n=n, sampling=sampling), masks)
    return forecast(plan, packed, n, 3, lambda _: None)


def ran(out: Path) -> int:
    return sum(pq.read_table(out / "manifest.parquet")["forwards"].to_pylist())


@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"guidance": 2.0, "mask_guidance": 1.0},
        {"cover": "random"},
        {"cover": "outpaint", "guidance": 2.0},
    ],
)
def test_forwards_of_sampled_label_maps(
    tiny_bundle: Path, tmp_path: Path, sampling: dict[str, object]
) -> None:
    """Per label they depend on label maps that are yet to be drawn: so these are drawn."""
    told = foretold(tiny_bundle, 3, **sampling)
    run(tiny_bundle, tmp_path, n=3, sampling=sampling)
    assert told.exact
    assert told.forwards == ran(tmp_path)
    assert told.per_image == told.forwards / 3
    assert told.per_megapixel == pytest.approx(told.forwards / (3 * 64 * 48) * 1e6)
    assert told.seconds > 0


def test_forwards_under_given_label_maps(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k, shape in enumerate([(40, 56), (64, 32)]):
        Image.fromarray(rng.integers(0, 5, shape).astype(np.uint8)).save(folder / f"{k}.png")
    told = foretold(tiny_bundle, 3, folder, guidance=3.0)
    run(tiny_bundle, tmp_path / "out", folder, n=3, sampling={"guidance": 3.0})
    assert told.forwards == ran(tmp_path / "out")


def test_of_many_images_the_first_are_counted(tiny_bundle: Path) -> None:
    few, many = foretold(tiny_bundle, 8), foretold(tiny_bundle, 8000)
    assert not many.exact
    assert many.forwards == 1000 * few.forwards
    assert many.disk_bytes == 1000 * few.disk_bytes
