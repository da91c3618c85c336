"""`make demo`: the shipped bundle → large images with label maps → a training loop reads them.

Runs the command line as a user would, in demo/, and prints what came out and how long it took.
"""

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from jobs import demo_tools as tools

SMALL, LARGE = "out/1024", "out/2048"
SEED = 2  # four kinds of tissue in four images
STEPS = "sampling.steps=8"  # of 10: no difference that the eye finds, in a seventh less time


def main() -> None:
    def synthesize(n: int, size: int, out: str) -> None:
        words = ("--bundle", "default", "--n", n, "--size", size, "--seed", SEED, "--out", out)
        tools.diffgen("synthesize", *words, *tools.QUICK, "--set", STEPS)

    tools.run(
        {
            "4 × 1024 px": lambda: synthesize(4, 1024, SMALL),
            "1 × 2048 px": lambda: synthesize(1, 2048, LARGE),
            "read back": lambda: tools.read_back(SMALL, LARGE),
            "picture": lambda: tools.sheet(SMALL, LARGE),
        },
        {
            SMALL: "4 images of 1024², with label maps",
            LARGE: "1 image of 2048²",
            "preview.png": "the picture to look at",
        },
        "make demo-train, or your own slides: diffgen prepare slides/ --config small",
    )


if __name__ == "__main__":
    if shutil.which("diffgen", path=str(tools.BIN)) is None:
        sys.exit("error: diffgen is not installed here: make install")
    main()
