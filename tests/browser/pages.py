"""A page with everything a page may have: every kind of block and level, long texts, hostile ones, none."""

import math

import numpy as np
from skimage import data

from diffgen.evaluation import plots
from diffgen.evaluation.page import (
    Gallery,
    Interval,
    Note,
    Page,
    Plot,
    Section,
    Table,
    Tile,
    Verdict,
)
from diffgen.evaluation.sections import cells
from diffgen.labels import Labels

EVIL = '<script>alert(1)</script><img src=x onerror=alert(2)> "quoted" & µm²'
LONG = (
    "Improved precision counts the synthetic images that lie among the real ones, recall the real ones that "
    "lie among the synthetic; neither sees an image that is copied, nor a texture that the feature network "
    "was not trained to see."
)
UNBROKEN = "/data/" + "a_folder_with_a_long_name" * 6 + "/shard-000000.tar"
LABELS = Labels(("unknown", "background", "stroma", "tumour", EVIL))


def full_page() -> Page:
    looks = Verdict("good", "precision 0.94", LONG)
    private = Verdict("poor", "14 copies of 2,048", EVIL)
    fits = Verdict("fair", "Dice 0.71", "Less than real images do.")
    seamless = Verdict("unknown", "", "No image is larger than a patch.")
    questions = [
        Section(
            "fidelity", "Does it look real?", looks, _fidelity(), [LONG, EVIL], f"diffgen evaluate {UNBROKEN}"
        ),
        Section(
            "privacy",
            "Is it private?",
            private,
            _privacy(),
            [LONG],
            "diffgen evaluate real synthetic --nearest 5",
        ),
        Section("labels", "Do images fit their masks?", fits, _labels(), command="diffgen evaluate --labels"),
        Section("large", "Are large images seamless?", seamless, _large()),
        Section("baselines", "Which rule is best?", None, [Note("Measured on the same bundle.")]),
    ]
    facts = [
        ("Real", "512 images of 256 × 256 px, 0.25 µm/px"),
        ("Synthetic", UNBROKEN),
        ("Features", "EfficientNet-Lite0, 1,280 numbers"),
        ("Command", "diffgen evaluate real synthetic --out report"),
        ("Version", EVIL),
    ]
    return Page("How good is the synthetic data?", LONG, facts, questions, [LONG, EVIL])


def _fidelity() -> list[Table | Plot | Gallery | Note]:
    rng = np.random.default_rng(0)
    two = {"real": rng.normal(0, 1, (300, 2)), "synthetic": rng.normal(0.4, 0.8, (300, 2))}
    rows: list[list[str | Interval]] = [
        ["Improved precision", Interval(0.94, 0.91, 0.96), Interval(0.97, 0.95, 0.98), "share"],
        ["Improved recall, of the real images that are among the synthetic ones", Interval(0.61, 0.55, 0.66),
         Interval(0.96, 0.94, 0.98), "share"],
        ["Fréchet distance", Interval(1234.5, 1190.25, 1301.75), Interval(88.1, 80, 97), "of features²"],
        [EVIL, Interval(math.nan), Interval(-0.5), "–"],
    ]  # fmt: skip
    wide = [
        f"{name} {way}" for name in ("stroma", "tumour", "necrosis") for way in ("precision", "recall", "F1")
    ]
    return [
        Note("Only 200 images: the Fréchet distance is biased upwards by that.", warning=True),
        Table(
            "Scores",
            ["", "synthetic", "real against real", "unit"],
            rows,
            LONG,
        ),
        Table(
            "Wide", ["", *wide], [[f"seed {i}", *(Interval(0.5, 0.4, 0.6) for _ in wide)] for i in range(3)]
        ),
        Table("Very wide", ["", *wide, *wide], [[UNBROKEN, *(Interval(0.5, 0.4, 0.6) for _ in wide + wide)]]),
        Plot(
            "First two components",
            plots.scatter2d(two),
            "Where the sets lie.",
        ),
        Plot("Distances", plots.histograms({k: np.hypot(*v.T) for k, v in two.items()}, "distance"), EVIL),
        Gallery("Nothing special", [Tile(_tissue(i), caption=f"{i}") for i in range(12)], "Drawn at random."),
        Gallery("One", [Tile(_tissue(0))]),
    ]


def _privacy() -> list[Table | Plot | Gallery | Note]:
    names = ["as it is", EVIL, "as it is", LONG, ""]
    pairs = [
        Tile(_tissue(i), _mask(i), name, Tile(_tissue(i + 1), caption=f"its neighbour {i}"))
        for i, name in enumerate(names)
    ]
    return [
        Gallery(
            "Nearest of the training set",
            pairs,
            LONG,
            _legend(),
        ),
        Note(LONG),
        Note(EVIL),
    ]


def _labels() -> list[Table | Plot | Gallery | Note]:
    names = ["background", "stroma", "tumour", "a class with a name that is rather long", EVIL]
    shares = {"real": [0.4, 0.3, 0.2, 0.09, 0.01], "synthetic": [0.35, 0.4, 0.2, 0.05, 0.0]}
    masked = [Tile(_tissue(i), _mask(i), f"image {i}") for i in range(8)]
    return [
        Plot("Shares", plots.bars(names, shares, "share of pixels", log=True)),
        Plot("Agreement", plots.bars(names, {"real": np.arange(5)}, "Dice"), LONG),
        Gallery("With their masks", masked, "", _legend()),
    ]


def _large() -> list[Table | Plot | Gallery | Note]:
    x = np.array([1, 2, 4, 8, 16, 32])
    band = plots.Band(1 / x, 0.9 / x, 1.1 / x)
    rules = [
        Tile(_tissue(i, 256), _mask(i, 256), rule) for i, rule in enumerate(("random", "tiled", "resized"))
    ]
    return [
        Plot(
            "Correlation",
            plots.lines(x, {"real": 1 / x, "synthetic": band}, "distance, px", "correlation", logx=True),
        ),
        Gallery("Crops", rules, "At patch lines.", _legend(), large=True),
    ]


def _tissue(i: int, side: int = 128) -> bytes:
    top, left = (i * 67) % (512 - side), (i * 131) % (512 - side)
    return cells.picture(data.immunohistochemistry()[top : top + side, left : left + side])


def _mask(i: int, side: int = 128) -> bytes:
    y, x = np.mgrid[:side, :side] / side * 6 + i
    return cells.overlay(np.digitize(np.sin(x) + np.cos(y), (-1, -0.3, 0.3, 1)).astype(np.uint8), LABELS)


def _legend() -> list[tuple[str, tuple[int, int, int]]]:
    return list(zip(LABELS.classes, LABELS.colours, strict=True))[1:]
