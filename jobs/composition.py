r"""Several kinds on one canvas: what is drawn under label maps that no picture had, and how far it agrees.

    python jobs/composition.py DATA OUT [--images 4] [--size 768]
    python jobs/composition.py DATA OUT --foreign MAPS --set synthesis.mask_mpp=0.25 \
        --set 'synthesis.mask_classes={1: carcinoma gland, 2: stroma}'

By the default bundle: `alone`, images of one kind each; `beside`, of two kinds on either side of a slanting
border; `graded`, the glands of such a map renamed by where they lie, from normal on the left to carcinoma on
the right; `foreign`, label maps of another data set. Segmenters that learned from the real images of DATA
(prepared with the preset `tissue`) judge all of them by class, as `diffgen evaluate` does. OUT holds shards,
one sheet of pictures per set, and table.json.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.measure import label, regionprops

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from diffgen.labels import LabelMap, Labels
from diffgen.models import shipped
from jobs.pictures import beside, mixed, pairs, synthesize

KINDS = "normal", "polyp", "lowgrade", "highgrade", "adenocarcinoma"
"""Contexts, from the healthy to the malign; the glands of each are a class of their own."""
GLANDS = "normal gland", "polyp gland", "low-grade gland", "high-grade gland", "carcinoma gland"
SHEET = 384


def graded(label_map: LabelMap, glands: tuple[int, ...]) -> LabelMap:
    """The glands of a label map (H, W) renamed by the place of their middle: `glands` from left to right."""
    out, width = label_map.copy(), label_map.shape[1]
    for gland in regionprops(label(np.isin(label_map, glands))):
        out[tuple(gland.coords.T)] = glands[int(gland.centroid[1] / width * len(glands))]
    return out


def written(folder: Path, maps: list[LabelMap]) -> Path:
    """A folder of label maps."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, label_map in enumerate(maps):
        Image.fromarray(label_map).save(folder / f"{k:03d}.png")
    return folder


def sheet(out: Path, labels: Labels) -> None:
    """OUT.jpg: the first images of a set, each below its label map."""
    columns = [(Image.fromarray(labels.paint(label_map)), image) for image, label_map in pairs(out)[:4]]
    rows = [beside(*row, height=SHEET) for row in zip(*columns, strict=True)]
    page = Image.new("RGB", (max(row.width for row in rows), SHEET * 2 + 8), "white")
    for k, row in enumerate(rows):
        page.paste(row, (0, k * (SHEET + 8)))
    page.save(out.with_suffix(".jpg"), quality=92)


def judged(data: Path, out: Path, report: Path, settings: list[str]) -> dict[str, object]:
    """Agreement by class of a set, with intervals; networks are trained for the first set alone."""
    words = ["evaluation.parts=[downstream]", "evaluation.downstream.arms=[real]", *settings]
    sets = [word for one in words for word in ("--set", one)]
    line = [sys.executable, "-m", "diffgen", "evaluate", data, out, "--out", report, "--inline", *sets]
    subprocess.run([str(word) for word in line], check=True)
    found: dict[str, object] = json.loads((report / "metrics.json").read_text())["downstream"]["agreement"]
    return found


def main(args: argparse.Namespace) -> None:
    labels = Labels.load(Path(shipped.resolve("default")) / "labels.json")
    glands = tuple(labels.classes.index(name) for name in GLANDS)
    of_kind: dict[str, list[LabelMap]] = {}
    for kind in KINDS:
        size = "--size", args.size, "--n", args.images, "--seed", args.seed, "--context", kind
        of_kind[kind] = [label_map for _, label_map in pairs(synthesize(args.out / "maps" / kind, *size))]
    healthier, malign = [of_kind[kind] for kind in KINDS[:-1]], of_kind[KINDS[-1]]
    given = {
        "alone": [maps[k] for k in range(args.images) for maps in of_kind.values()],
        "beside": [mixed(healthier[k % 4][k], malign[k]) for k in range(args.images)],
        "graded": [graded(label_map, glands) for label_map in of_kind["lowgrade"]],
    }
    for name, maps in given.items():
        synthesize(args.out / name, "--masks", written(args.out / "maps" / name, maps), "--n", len(maps))
    if args.foreign:
        sets = [word for one in args.set for word in ("--set", one)]
        synthesize(args.out / "foreign", "--masks", args.foreign, "--n", args.images, *sets)
    table = {}
    for name in (*given, *(["foreign"] if args.foreign else [])):
        sheet(args.out / name, labels)
        table[name] = judged(args.data, args.out / name, args.out / "report", args.evaluation)
    (args.out / "table.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("data", type=Path, help="what diffgen prepare wrote, with the preset tissue")
    add("out", type=Path, help="folder that is written")
    add("--images", type=int, default=4, help="of each set; five times as many of alone")
    add("--size", type=int, default=768, help="side of an image, in pixels")
    add("--seed", type=int, default=0, help="of the label maps")
    add("--foreign", type=Path, help="label maps of another data set")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting of the foreign set")
    add("--evaluation", action="append", default=[], metavar="KEY=VALUE", help="one setting of the judges")
    return parser.parse_args()


if __name__ == "__main__":
    main(parsed())
