"""Speed of `diffgen prepare` on a slide beside a bare loop, and of outlines, in one table.

    python benchmarks/prepare.py [SLIDE] [--turns N] [--json FILE]

prepare    megapixels of patches per second and core: the second pass (read, crop, measure the stains,
           encode), in this process, without labels, at the slide's own scale.
bare loop  the same regions by `openslide.read_region`, cropped and encoded as PNG; by turns with the first.
outlines   seconds to make label maps of a slide of 4096 pixels a side, in tiles of 512, from 10,000 cells
           (polygons of 24 corners), from 200 regions (of 400 corners), and from one region with 10,000 holes
           (as a pixel classifier draws it).

Without SLIDE one is made: 4096 pixels a side, a tiled pyramid in JPEG. Goal: 0.85 of the bare loop.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openslide
import shapely
import tifffile
from rich.console import Console
from rich.table import Table

from diffgen import config
from diffgen.data.annotations import Annotations, Shape, rasterise
from diffgen.data.classes import Classes
from diffgen.data.cut import CutJob, cut, cut_jobs, encode
from diffgen.data.plan import plan_patches
from diffgen.data.report import Report
from diffgen.data.scan import scan
from diffgen.data.slides import Slide, open_slide
from diffgen.data.sources import find_sources

MPP, SIDE, TILE = 0.5, 4096, 512
CELLS, REGIONS = (10_000, 24, 6.0), (200, 400, 250.0)  # number, corners, mean radius in pixels


def make_slide(path: Path, side: int) -> Path:
    """A tiled pyramid of smooth colour and grain, all of it tissue."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(-40, 40, (side // 64, side // 64, 1)).repeat(64, 0).repeat(64, 1)
    grain = rng.integers(-12, 12, (side, side, 3))
    picture = np.clip(np.array([200, 130, 180]) + coarse + grain, 0, 255).astype(np.uint8)
    about = {"resolution": (1e4 / MPP, 1e4 / MPP), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(picture, tile=(256, 256), photometric="rgb", compression="jpeg", subifds=1, **about)
        tiff.write(picture[::2, ::2], tile=(256, 256), photometric="rgb", compression="jpeg", subfiletype=1)
    return path


def jobs_of(path: Path, settings: config.Settings) -> list[CutJob]:
    """What `prepare` cuts of a slide."""
    source = find_sources([str(path)]).sources[0]
    plans = plan_patches([scan(source, settings, Classes())], settings, Classes(), Report(path.parent))
    return [job for plan in plans for job in cut_jobs(plan, settings)]


def by_prepare(jobs: Sequence[CutJob], settings: config.Settings) -> None:
    for job in jobs:
        cut(job, settings, Classes())


def bare(jobs: Sequence[CutJob], slide: openslide.OpenSlide) -> None:
    """Each job's region read once, and its patches encoded."""
    for job in jobs:
        left, top = min(p.x for p in job.patches), min(p.y for p in job.patches)
        right = max(p.x + p.width for p in job.patches)
        bottom = max(p.y + p.height for p in job.patches)
        region = np.asarray(slide.read_region((left, top), 0, (right - left, bottom - top)).convert("RGB"))
        for p in job.patches:
            encode(region[p.y - top : p.y - top + p.height, p.x - left : p.x - left + p.width])


def outlines(number: int, corners: int, radius: float, side: int) -> Annotations:
    rng = np.random.default_rng(1)
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    shapes = []
    for x, y in rng.uniform(0, side, (number, 2)):
        reach = radius * rng.uniform(0.8, 1.2, corners)
        ring = np.stack([x + reach * np.cos(angles), y + reach * np.sin(angles)], axis=1)
        shapes.append(Shape("a", shapely.Polygon(ring)))
    return Annotations(tuple(shapes))


def perforated(side: int, across: int) -> Annotations:
    """One region with holes in rows."""
    step = side / across
    places = (np.arange(across) + 0.5) * step
    holes = [shapely.Point(x, y).buffer(step / 4).exterior.coords for y in places for x in places]
    return Annotations((Shape("a", shapely.Polygon(shapely.box(0, 0, side, side).exterior, holes)),))


def rasterised(drawn: Annotations, slide: Slide, side: int) -> float:
    began = time.perf_counter()
    for top in range(0, side, TILE):
        for left in range(0, side, TILE):
            rasterise(drawn, {"a": 1}, slide, (left, top, TILE, TILE), MPP)
    return time.perf_counter() - began


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("slide", type=Path, nargs="?")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="see that it works")
    given = parser.parse_args(arguments)
    side, few = (1024, 50) if given.quick else (SIDE, 1)
    with tempfile.TemporaryDirectory() as place:
        path = given.slide or make_slide(Path(place) / "slide.tiff", side)
        opened, _ = open_slide(str(path), MPP)
        mpp = max(opened.mpp)
        said = ["prepare.labels=none", f"prepare.mpp={mpp}", f"mask_model.pixel_um={16 * mpp}"]
        settings = config.load(None, [*said, f"prepare.assume_mpp={MPP}"])
        jobs = jobs_of(path, settings)
        pixels = sum(p.width * p.height for job in jobs for p in job.patches) / 1e6
        taken: dict[str, list[float]] = {"prepare": [], "bare loop": []}
        with openslide.OpenSlide(path) as slide:
            for _ in range(1 if given.quick else given.turns):
                began = time.perf_counter()
                by_prepare(jobs, settings)
                middle = time.perf_counter()
                bare(jobs, slide)
                taken["prepare"].append(middle - began)
                taken["bare loop"].append(time.perf_counter() - middle)
        rates = {name: pixels / statistics.median(seconds) for name, seconds in taken.items()}
        found = {f"{name}, MP/s": rate for name, rate in rates.items()}
        found["prepare by bare loop"] = rates["prepare"] / rates["bare loop"]
        for name, (number, corners, radius) in {"cells": CELLS, "regions": REGIONS}.items():
            drawn = outlines(number // few, corners, radius, side)
            found[f"{number // few:,} {name}, s"] = rasterised(drawn, opened, side)
        across = 10 if given.quick else 100
        found[f"a region with {across**2:,} holes, s"] = rasterised(perforated(side, across), opened, side)
    table = Table("", "", title="prepare", show_header=False)
    for name, value in found.items():
        table.add_row(name, f"{value:.3g}")
    Console().print(table)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
