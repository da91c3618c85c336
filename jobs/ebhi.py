"""EBHI-Seg as a source of `diffgen prepare`: pictures, label maps by gland and kind, and a table of cases.

    python jobs/ebhi.py FOLDER OUT        # FOLDER/images/kind-case-number.*, FOLDER/masks/….png (0/255)
    diffgen prepare OUT/pictures --config tissue --set prepare.contexts=OUT/sources.csv

The data set (Shi et al., Frontiers in Medicine 10:1114673, 2023; CC BY 4.0) stores its pictures squeezed
sideways, and many with a black rim: two pixels of each side are cut off, the rest is stretched by 4/3.
Classes: what is bright is lumen, inside and outside glands; what is left of a gland is of its picture's
kind; the rest is stroma.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.morphology import remove_small_holes, remove_small_objects

KINDS = {
    "normal": "normal gland", "polyp": "polyp gland", "lowgrade": "low-grade gland",
    "highgrade": "high-grade gland", "serrated": "serrated gland", "adenocarcinoma": "carcinoma gland",
}  # fmt: skip
STROMA, LUMEN, FIRST_GLAND = 1, 2, 3
RIM = 2
SIZE = 288, 216
"""Width and height of a stretched picture: 4/3 of a side, in multiples of eight."""
BRIGHT = 0.80
"""Share of the picture's white above which a pixel is lumen or background, after a blur of a nucleus."""
BLUR, LEAST = 1.5, 40
"""Pixels: deviation of that blur, and the area below which a lumen, or a hole in one, is none."""


def label_map(picture: NDArray[np.uint8], gland: NDArray[np.bool_], kind: str) -> NDArray[np.uint8]:
    """(H, W) class ids of a picture (H, W, 3) and its gland mask (H, W)."""
    brightness = gaussian_filter(picture.min(axis=-1).astype(np.float32), BLUR) / np.percentile(picture, 99)
    lumen = remove_small_objects(brightness > BRIGHT, max_size=LEAST)
    lumen = remove_small_holes(lumen, max_size=LEAST)
    ids = np.where(gland, FIRST_GLAND + list(KINDS).index(kind), STROMA)
    return np.where(lumen, LUMEN, ids).astype(np.uint8)


def convert(folder: Path, out: Path) -> int:
    """Write OUT/pictures and OUT/sources.csv; how many pictures there are."""
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    rows = []
    for path in sorted((folder / "images").iterdir()):
        kind, case, _ = path.stem.split("-")
        source = Image.open(path).convert("RGB")
        box = RIM, RIM, source.width - RIM, source.height - RIM
        image = source.resize(SIZE, Image.Resampling.BICUBIC, box)
        mask = Image.open(folder / "masks" / f"{path.stem}.png").convert("L").resize(SIZE, box=box)
        picture = np.asarray(image)
        image.save(out / "pictures" / f"{path.stem}.png")
        ids = label_map(picture, np.asarray(mask) > 127, kind)
        Image.fromarray(ids).save(out / "pictures" / f"{path.stem}_mask.png")
        rows.append((f"{path.stem}.png", kind, f"{kind}-{case}"))
    with (out / "sources.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "context", "group"), *rows])
    return len(rows)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(f"{convert(Path(sys.argv[1]), Path(sys.argv[2]))} pictures in {sys.argv[2]}")
