"""What `--dry-run` foretells is what a run takes."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from diffgen.models import bundle
from diffgen.sampling import denoise
from diffgen.sampling.canvas import Patch
from diffgen.sampling.guidance import NONE
from diffgen.synthesis.driver import dry_run
from diffgen.synthesis.forecast import Forecast, forecast, gpu_hours
from diffgen.synthesis.plan import make_plan
from diffgen.synthesis.store_requests import store_requests
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


def given_maps(folder: Path) -> Path:
    folder.mkdir()
    for k in range(2):
        Image.fromarray(np.full((48, 64), 2 + k, np.uint8)).save(folder / f"{k}.png")
    return folder


def test_flops_are_those_of_the_forwards_that_a_run_takes(tiny_bundle: Path, tmp_path: Path) -> None:
    """Under given label maps all forwards are of one model: of one patch, counted by itself."""
    maps = given_maps(tmp_path / "maps")
    told = foretold(tiny_bundle, 2, maps)
    run(tiny_bundle, tmp_path / "out", maps, n=2)
    unet = bundle.load(tiny_bundle).image_unet
    side = 8
    shape = (side, side)
    patch = Patch(np.zeros((4, *shape), np.float32), 1, np.ones(shape, np.uint8), np.ones(shape, np.bool_))
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        denoise.estimate(unet, [patch], NONE, "joint", 1)
    assert counter.get_total_flops() > 0
    assert told.flops == pytest.approx(ran(tmp_path / "out") * counter.get_total_flops())


def test_gpu_hours_say_what_they_rest_on(tiny_bundle: Path) -> None:
    told = foretold(tiny_bundle, 3)
    assert told.flops is not None
    assert "not known, as no GPU is here" in gpu_hours(told, "cpu", None)
    by_rate = gpu_hours(told, "cpu", 1e-6)  # a GPU of a million FLOP/s
    assert float(by_rate.split()[0]) == pytest.approx(told.flops / 1e6 / 3600, rel=0.01)
    assert "at 1e-06 TFLOP/s (synthesis.gpu_tflops)" in by_rate
    measured = gpu_hours(replace(told, seconds=7200.0, flops=None), "H100", None)
    assert measured == "2 of denoising, as measured on the H100 here"


def test_a_bucket_is_told_of_its_requests_and_a_folder_is_not(tiny_bundle: Path, tmp_path: Path) -> None:
    """By shards of the settings, or as many as the folder would choose."""
    said = {}
    for out, shards in ((tmp_path / "out", 2), ("s3://bucket/out", 2), ("s3://bucket/out", "auto")):
        console = Console(record=True, width=200, quiet=False, file=io.StringIO())
        places = settings(n=9, images_per_shard=shards)
        places = places.model_copy(update={"places": places.places.model_copy(update={"out": str(out)})})
        dry_run(tiny_bundle, places, None, console)
        said[str(out), shards] = console.export_text()
    assert not (tmp_path / "out").exists()
    assert "requests" not in said[str(tmp_path / "out"), 2]
    for shards, per_shard in ((2, 2), ("auto", 1)):
        told = store_requests(9, per_shard, 1.0)
        assert (
            f"{told.writes} requests that write or list, {told.reads} that read"
            in said["s3://bucket/out", shards]
        )
