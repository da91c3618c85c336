"""Seconds until work begins where there are many files, in one table.

    python benchmarks/many_files.py [--files 1000 10000 100000] [--only COMMAND ...] [--json FILE] [--quick]

prepare      of a folder of pictures: until the first of them is opened and the bar is shown.
synthesize   --masks with a folder of label maps, one image for each: until the coordinators have their
             images, which is the plan, the folder's claim and the split into two parts.

All files are PNGs of 16 px, on the disk of the temporary folder, just written. Imports are not timed, nor is
the start of Ray. In brackets what the process computed, which is less where other work takes the cores.
Goal: 10 s at 100,000 files.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.synthesis.bundles import CLASSES, label_map, random_bundle, settings_of
from diffgen import config
from diffgen.data.pipeline import Pipeline
from diffgen.data.prepare import prepare
from diffgen.models import bundle
from diffgen.synthesis.backlog import claim
from diffgen.synthesis.plan import make_plan
from diffgen.synthesis.render import png

FILES, QUICK = (1_000, 10_000, 100_000), (20, 40)
SIDE, DIFFERENT = 16, 16
GOAL_S = 10
SMALL = ["image_model.patch=4", "image_model.attention=[4]", "image_model.width=8", "mask_model.width=8"]
"""An image patch is as large as a label map."""


Seconds = dict[str, float]
"""`wall` and `cpu`."""


def now() -> Seconds:
    return {"wall": time.perf_counter(), "cpu": time.process_time()}


def since(began: Seconds) -> Seconds:
    return {name: value - began[name] for name, value in now().items()}


class Begun(Exception):  # noqa: N818  # no error
    """Work would begin now."""


def write_maps(folder: Path, count: int) -> Path:
    """A folder of so many label maps."""
    folder.mkdir()
    maps = [png(label_map(SIDE, SIDE / 2, len(CLASSES), seed)) for seed in range(DIFFERENT)]
    for k in range(count):
        (folder / f"{k:06d}.png").write_bytes(maps[k % DIFFERENT])
    return folder


def write_pictures(folder: Path, count: int) -> Path:
    """A folder of so many pictures."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    pictures = [png(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)) for _ in range(DIFFERENT)]
    for k in range(count):
        (folder / f"{k:06d}.png").write_bytes(pictures[k % DIFFERENT])
    return folder


def before_prepare(maps: Path, place: Path) -> Seconds:
    """Until `diffgen prepare` opens the first source."""
    settings = config.load(None, ["prepare.labels=none", "prepare.assume_mpp=0.5"])

    def begin(*_: Any, **__: Any) -> None:
        raise Begun

    began = now()
    with mock.patch.object(Pipeline, "run", begin), suppress(Begun):
        prepare([str(maps)], place / "prepared", settings, Console(quiet=True), inline=True)
    return since(began)


def before_synthesize(maps: Path, place: Path) -> Seconds:
    """Until `diffgen synthesize --masks` has shared the images out."""
    folder = random_bundle(place / "bundle", config.load(None, SMALL))
    count = sum(1 for _ in maps.iterdir())
    settings, packed = settings_of(folder, synthesis__n=count), bundle.pack(folder)
    began = now()
    plan = make_plan(packed, folder, settings, maps)
    parts = claim(plan, packed, str(place / "out"), settings.synthesis).split(2)
    seconds = since(began)
    assert sum(map(len, parts)) == count
    return seconds


COMMANDS: dict[str, Callable[[Path, Path], Seconds]] = {
    "prepare": before_prepare,
    "synthesize": before_synthesize,
}


def measure(command: str, count: int) -> Seconds:
    with tempfile.TemporaryDirectory() as place:
        write = write_pictures if command == "prepare" else write_maps
        return COMMANDS[command](write(Path(place) / "files", count), Path(place))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--files", type=int, nargs="+", default=FILES)
    parser.add_argument("--only", choices=COMMANDS, action="append", help="this command (may be given again)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="see that it works")
    given = parser.parse_args(arguments)
    counts = QUICK if given.quick else given.files
    found = {
        command: {str(count): measure(command, count) for count in counts}
        for command in given.only or COMMANDS
    }
    table = Table("command", title="seconds until work begins", caption=f"goal: {GOAL_S}")
    for count in counts:
        table.add_column(f"{count:,} files", justify="right")
    for command, seconds in found.items():
        table.add_row(command, *(f"{value['wall']:.2f} ({value['cpu']:.2f})" for value in seconds.values()))
    Console().print(table)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
