"""docs/results.md's pictures, of what `diffgen evaluate DATA BUNDLE --paper --out REPORT` has drawn.

python jobs/results_pictures.py REPORT [FOLDER]        # docs/images by default
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import diffgen
from diffgen.evaluation.sampled_images import METHODS
from diffgen.labels import Labels
from jobs.pictures import ROOT, beside

HEIGHT = 320


def images(folder: Path, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The first images of shards with their label maps."""
    samples = diffgen.open(str(folder))
    return [samples[k][:2] for k in range(min(count, len(samples)))]


def main(report: Path, folder: Path) -> None:
    drawn = [images(report / "baselines" / method, 2) for method in METHODS]
    rows = [
        beside(*(Image.fromarray(np.asarray(image)) for image, _ in pair), height=HEIGHT)
        for pair in zip(*drawn, strict=True)
    ]
    stacked(rows).save(folder / "ways.jpg", quality=90)
    squares = report / "baselines" / "squares"
    labels = Labels.load(squares / "labels.json")
    found = images(squares, 9)
    label_map = np.asarray(max((ids for _, ids in found), key=lambda ids: ids.shape[0]))
    shown = [Image.fromarray(np.asarray(image)) for image, _ in found]
    beside(Image.fromarray(labels.paint(label_map)), *shown, height=HEIGHT).save(
        folder / "squares.jpg", quality=90
    )


def stacked(rows: list[Image.Image]) -> Image.Image:
    """Rows of one width below one another, eight white pixels between them."""
    height = sum(row.height for row in rows) + 8 * (len(rows) - 1)
    whole = Image.new("RGB", (max(row.width for row in rows), height), "white")
    top = 0
    for row in rows:
        whole.paste(row, (0, top))
        top += row.height + 8
    return whole


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else ROOT / "docs" / "images")
