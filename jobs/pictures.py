"""README's pictures, by the bundle that ships: a large image, appearances, mixed kinds, time-state map.

python jobs/pictures.py [FOLDER]        # docs/images by default; about three minutes of two cores
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from diffgen.labels import Labels
from diffgen.models import shipped
from jobs.demo_tools import QUICK

ROOT = Path(__file__).resolve().parent.parent
LOOKS = 4
SEED = 3
KINDS = "normal", "adenocarcinoma"


def synthesize(out: Path, *words: object) -> Path:
    """Run the command; the folder with its images as plain files."""
    import webdataset

    line = [sys.executable, "-m", "diffgen", "synthesize", "--bundle", "default", "--out", out, *QUICK]
    subprocess.run([str(word) for word in (*line, *words)], check=True)
    for sample in webdataset.WebDataset(
        [str(path) for path in sorted(out.glob("*.tar"))], shardshuffle=False
    ):
        for extension in ("png", "mask.png"):
            (out / f"{sample['__key__']}.{extension}").write_bytes(sample[extension])
    return out


def pairs(out: Path) -> list[tuple[Image.Image, np.ndarray]]:
    """Image and label map of each sample, in order."""
    names = sorted(path for path in out.glob("*.png") if path.name.count(".") == 1 and path.stem.isdigit())
    return [(Image.open(p), np.asarray(Image.open(p.with_suffix(".mask.png")))) for p in names]


def beside(*pictures: Image.Image, height: int) -> Image.Image:
    """Pictures in a row, all brought to one height, eight white pixels between them."""
    scaled = [picture.resize((picture.width * height // picture.height, height)) for picture in pictures]
    row = Image.new("RGB", (sum(p.width for p in scaled) + 8 * (len(scaled) - 1), height), "white")
    left = 0
    for picture in scaled:
        row.paste(picture, (left, 0))
        left += picture.width + 8
    return row


def mixed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """One label map on the left, another on the right of a slanting border."""
    height, width = first.shape
    border = width / 2 + (np.arange(height)[:, None] - height / 2) / 4
    return np.where(np.arange(width)[None] < border, first, second)


def main(folder: Path) -> None:
    labels = Labels.load(Path(shipped.resolve("default")) / "labels.json")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        size = ("--size", 2048, "--n", 1, "--save-time-map")
        image, label_map = pairs(synthesize(work / "large", *size))[0]
        painted = Image.fromarray(labels.paint(label_map))
        beside(image, painted, height=900).save(folder / "large.jpg", quality=92)
        image.crop((0, 0, 512, 512)).save(folder / "large_100.jpg", quality=92)
        film = Image.open(next((work / "large" / "time-map").glob("*.gif")))
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(film)]
        chosen = [frames[k] for k in np.linspace(0, len(frames) - 1, 8).astype(int)]
        beside(*chosen, height=160).save(folder / "time_map.jpg", quality=92)

        maps = [
            pairs(synthesize(work / kind, "--size", 512, "--n", 1, "--context", kind, "--seed", SEED))[0][1]
            for kind in KINDS
        ]
        given = work / "looks"
        given.mkdir()
        for k in range(LOOKS):
            Image.fromarray(maps[0]).save(given / f"{k}.png")
        looks = [image for image, _ in pairs(synthesize(work / "look", "--masks", given))]
        beside(Image.fromarray(labels.paint(maps[0])), *looks, height=320).save(
            folder / "appearances.jpg", quality=92
        )
        both = work / "both"
        both.mkdir()
        Image.fromarray(mixed(*maps)).save(both / "0.png")
        image, label_map = pairs(synthesize(work / "mixed", "--masks", both, "--seed", SEED))[0]
        beside(Image.fromarray(labels.paint(label_map)), image, height=512).save(
            folder / "mixed.jpg", quality=92
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images")
