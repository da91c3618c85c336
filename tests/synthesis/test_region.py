"""`--region`: the bytes of that crop of the whole image, from a run that never draws the whole."""

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from diffgen.errors import UserError
from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.sampling.decode import windows_box
from diffgen.synthesis import image_job, region
from diffgen.synthesis.driver import synthesize
from diffgen.synthesis.forecast import forecast
from diffgen.synthesis.plan import Plan, make_plan
from diffgen.synthesis.region import MaskPart, image_covers, mask_parts
from tests import latent_masks
from tests.synthesis.helpers import QUIET, StopError, Watch, run, settings, shard_hashes
from tests.synthesis.test_driver import members
from tests.synthesis.test_tiles import picture

SIZE = "800x160"
SHORT = {"mask_steps": 2, "steps": 2}
PLACES = ["0,0,64,64", "360,60,96,40", "736,120,64,40", "4,20,20,120"]


def compare(bundle_at: Path, tmp_path: Path, place: str, masks: Path | None = None, **more: Any) -> None:
    """A region is that crop of the whole, which is made once a folder."""
    x, y, width, height = map(int, place.split(","))
    given = {"n": 1, **({} if masks else {"size": SIZE}), **more}
    if not (tmp_path / "whole").exists():
        run(bundle_at, tmp_path / "whole", masks, **given)
    out = tmp_path / place
    run(bundle_at, out, masks, region=place, **given)
    whole, part = members(tmp_path / "whole"), members(out)
    for kind in ("png", "mask.png"):
        expected = picture(whole, f"000000000.{kind}")[y : y + height, x : x + width]
        assert np.array_equal(picture(part, f"000000000.{kind}"), expected), kind
    records = [json.loads(files["000000000.json"]) for files in (whole, part)]
    told = {"x": x, "y": y, "width": width, "height": height}
    assert records[1]["region"] == records[1]["run"]["region"] == told
    assert "region" not in records[0]
    assert records[1]["parent"] == {"index": 0, "height": 160, "width": 800}
    assert json.loads((out / "run.json").read_text())["region"] == told
    row = pq.read_table(out / "manifest.parquet").to_pylist()[0]
    assert (row["width"], row["height"]) == (width, height)
    assert row["forwards_per_megapixel"] == pytest.approx(row["forwards"] / (width * height) * 1e6)


@pytest.mark.parametrize("place", PLACES)
def test_a_region_is_the_crop_of_the_whole(
    tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory, place: str
) -> None:
    compare(tiny_bundle, tmp_path_factory.getbasetemp() / "region", place, sampling=SHORT)


@pytest.mark.parametrize(
    "sampling",
    [
        {"cover": "random"},
        {"cover": "aligned"},
        {"solver": "sde-dpmsolver++", "guidance": 1.5, "mask_guidance": 1.0},
        {"min_region_um2": 1500.0},
        {"decode_tile": 8, "decode_overlap": 0.5},
    ],
)
def test_other_ways_to_draw(tiny_bundle: Path, tmp_path: Path, sampling: dict[str, Any]) -> None:
    compare(tiny_bundle, tmp_path, PLACES[1], sampling=SHORT | sampling)


def test_a_region_of_given_label_maps(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    ids = np.random.default_rng(0).integers(0, 5, (5, 25)).repeat(32, 0).repeat(32, 1)
    Image.fromarray(ids.astype(np.uint8)).save(tmp_path / "masks" / "one.png")
    compare(tiny_bundle, tmp_path, PLACES[1], tmp_path / "masks", sampling=SHORT | {"guidance": 0.0})


def test_a_region_with_masks_through_an_autoencoder(labels: Labels, tmp_path: Path) -> None:
    folder = latent_masks.make(tmp_path / "bundle", labels)
    compare(folder, tmp_path, PLACES[1], sampling=SHORT | {"guidance": 0.0})


def plan_of(folder: Path, **synthesis: Any) -> Plan:
    return make_plan(bundle.pack(folder), folder, settings(**synthesis), None)


def test_what_is_held_and_drawn_is_the_region_s_halo(tiny_bundle: Path) -> None:
    """The same 64² of a small canvas and of one ten times as wide: the cost ends where the halo ends."""
    made = {"region": "640,640,64,64", "sampling": SHORT}
    small, large = (plan_of(tiny_bundle, size=size, **made) for size in ("1344", "12800"))
    window = image_covers(large, 0).window
    halo = 2 * 2 * 8 + 2 * 16  # two steps of a patch on both sides, and decoding windows
    assert max(window[2] - window[0], window[3] - window[1]) <= 16 + halo
    part = next(mask_parts(large, 0, window))
    assert part is not None
    assert part.whole == (800, 800)
    assert part.latents[2] - part.latents[0] < 40
    assert (
        windows_box((3200, 3200), (160, 160, 176, 176), 16, large.tiling.overlap)
        == (
            image_covers(large, 0).needed[-1]  # type: ignore[attr-defined]
        )
    )
    costs = [forecast(p, bundle.pack(tiny_bundle), 1, 1, lambda _: None) for p in (small, large)]
    assert costs[1].forwards < 1.5 * costs[0].forwards
    assert costs[1].coordinator_bytes < 1.5 * costs[0].coordinator_bytes
    assert costs[1].halo is not None
    assert costs[1].halo.share < 0.001
    assert " px of 12800x12800; 0.0" in costs[1].halo.text


def test_two_regions_of_a_gigapixel_agree_where_they_overlap(tiny_bundle: Path, tmp_path: Path) -> None:
    """In the middle of 100,000²: nothing of the size of the whole, 10 GB of latents, is ever made."""
    drawn = {}
    for x in (50_000, 50_032):
        place = f"{x},49984,64,32"
        tracemalloc.start()
        run(tiny_bundle, tmp_path / place, n=1, size="100000", region=place, sampling=SHORT)
        assert tracemalloc.get_traced_memory()[1] < 50e6
        tracemalloc.stop()
        drawn[x] = members(tmp_path / place)
    for kind in ("png", "mask.png"):
        left, right = (picture(drawn[x], f"000000000.{kind}") for x in drawn)
        assert np.array_equal(left[:, 32:], right[:, :32])


def test_a_dry_run_counts_what_a_region_takes(tiny_bundle: Path, tmp_path: Path) -> None:
    asked = {"size": SIZE, "region": PLACES[1], "sampling": SHORT, "n": 2}
    told = forecast(plan_of(tiny_bundle, **asked), bundle.pack(tiny_bundle), 2, 2, lambda _: None)
    run(tiny_bundle, tmp_path, **asked)
    table = pq.read_table(tmp_path / "manifest.parquet")
    assert told.exact
    assert told.forwards == sum(table["forwards"].to_pylist())


def test_a_part_is_drawn_wider_until_cleaning_is_sure(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mask model of noise, regions of 9 pixels at least, and too little around what is asked."""
    drawn = []

    def counted(*given: Any) -> Iterator[MaskPart | None]:
        for part in mask_parts(*given):
            drawn.append(part)
            yield part

    monkeypatch.setattr(region, "first_margin", lambda _: 1)
    monkeypatch.setattr(image_job, "mask_parts", counted)
    compare(tiny_bundle, tmp_path, PLACES[0], sampling=SHORT | {"min_region_um2": 600.0})
    whole, first, *more = drawn
    assert whole is None
    assert first is not None
    assert first.drawn[3] < first.whole[1]
    assert more


def test_a_region_is_resumed_from_its_snapshot(tiny_bundle: Path, tmp_path: Path) -> None:
    asked = {"size": SIZE, "region": PLACES[1], "n": 1, "sampling": {"mask_steps": 2}, "snapshot_s": 0}
    run(tiny_bundle, tmp_path / "one", **asked)
    watch = Watch()
    run(tiny_bundle, tmp_path / "count", watch=watch, **asked)
    with pytest.raises(StopError):
        run(tiny_bundle, tmp_path / "two", watch=Watch(stop=watch.leases - 4), **asked)
    assert list((tmp_path / "two" / "snapshots").iterdir())
    run(tiny_bundle, tmp_path / "two", **asked)
    assert shard_hashes(tmp_path / "one") == shard_hashes(tmp_path / "two")


@pytest.mark.parametrize(
    ("place", "more", "said"),
    [
        ("0,0,64", {}, "--region 0,0,64: expected X,Y,W,H in pixels"),
        ("2,0,64,64", {}, "--region 2,0,64,64: all four must be multiples of 4, the latent grid"),
        ("740,0,64,64", {}, "--region 740,0,64,64: not inside of the image of 800x160"),
        ("-4,0,64,64", {}, "not inside of the image"),
        ("0,0,0,64", {}, "not inside of the image"),
        ("0,0,64,64", {"sampling": {"cover": "diffcollage"}}, "not with sampling.cover=diffcollage"),
        ("0,0,64,64", {"sampling": {"cover": "multidiffusion"}}, "not with sampling.cover=multidiffusion"),
        ("0,0,64,64", {"sampling": {"cover": "outpaint"}}, "not with sampling.cover=outpaint"),
        ("0,0,64,64", {"emit": "tiles", "tile": 64}, "not with --emit tiles"),
    ],
)
def test_what_cannot_be_is_refused(
    tiny_bundle: Path, tmp_path: Path, place: str, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        run(tiny_bundle, tmp_path / "out", size=SIZE, region=place, **more)
    assert not (tmp_path / "out").exists()


def test_a_time_map_is_of_a_whole_image(tiny_bundle: Path, tmp_path: Path) -> None:
    asked = settings(size=SIZE, region=PLACES[0])
    with pytest.raises(UserError, match="--save-time-map: of whole images"):
        synthesize(tiny_bundle, str(tmp_path / "out"), asked, None, True, QUIET, time_maps=True)
