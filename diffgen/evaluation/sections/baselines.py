"""How do ways to draw large images compare? Tables 1 and 5 and Figs. 3, 6, 7 and 11 of the paper."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffgen import label_maps
from diffgen.evaluation import plots, sampled_images
from diffgen.evaluation.bootstrap import as_json
from diffgen.evaluation.features import View
from diffgen.evaluation.images import RegionSet, open_images
from diffgen.evaluation.large_images import Large, Measured, Scores, compare
from diffgen.evaluation.page import Block, Gallery, Note, Plot, Table
from diffgen.evaluation.run import EvaluationRun, SectionResult
from diffgen.evaluation.sampled_images import METHODS, Drawn
from diffgen.evaluation.sections.cells import SHARE, RowSpec, cell, legend, tile
from diffgen.evaluation.sections.large import MOST, judge, largest, measured
from diffgen.evaluation.sets import LEAST, numbered
from diffgen.models import bundle
from diffgen.synthesis import driver

TITLE = "How do the ways to draw large images compare?"
SIZES = (1, 2, 4, 8, 16)
"""Of Fig. 3, in patches."""
SQUARES = (1, 2, 4)
"""Of Figs. 6 and 7: the paper's 512, 1024 and 2048 pixels with patches of 512."""
SHOWN = 3
INTERVALS = "Intervals of 95 % over sources."
BLIND = (
    "All methods use one bundle, which was trained for one of them: wide crops at high noise serve the "
    "jittered grid, the others take what they know.",
    "Few images: IP and IR of small sets are rough, as intervals say, and larger than those of large sets.",
)


@dataclass(frozen=True)
class MeasuredMethod:
    """One method's images, in figures."""

    drawn: Drawn
    tiled: Scores
    """Of tiles of a patch's size."""
    resized: Scores | None
    large: Large | None

    @property
    def name(self) -> str:
        return METHODS[self.drawn.method]


QUALITY: tuple[RowSpec, ...] = (
    ("IP, tiled", lambda m: m.tiled.precision, 2, None, 1.0, ""),
    ("IR, tiled", lambda m: m.tiled.recall, 2, None, 1.0, ""),
    ("IP, resized", lambda m: m.resized and m.resized.precision, 2, None, 1.0, ""),
    ("IR, resized", lambda m: m.resized and m.resized.recall, 2, None, 1.0, ""),
    ("seams", lambda m: m.large and m.large.synthetic.seam, 2, None, 1.0, ""),
    ("correlation, error", lambda m: m.large and m.large.correlation_error, 2, None, 1.0, ""),
)
COPIES: tuple[RowSpec, ...] = (
    ("A, tiled", lambda m: m.tiled.memory.authenticity, 2, SHARE, 1.0, ""),
    ("A, resized", lambda m: m.resized and m.resized.memory.authenticity, 2, SHARE, 1.0, ""),
    ("C_T, tiled", lambda m: m.tiled.memory.c_t, 1, None, 1.0, ""),
    ("C_T, resized", lambda m: m.resized and m.resized.memory.c_t, 1, None, 1.0, ""),
)


def build(run: EvaluationRun) -> SectionResult:
    """Images of every method under the same label maps, and what they cost."""
    assert run.bundle is not None
    asked, facts = run.settings.baselines, bundle.load(run.bundle, weights=False).facts
    patch = facts.image_patch * facts.factor
    side = run.settings.baseline_side or SQUARES[-1] * patch
    folder = run.folder / "baselines"
    masks = _masks(run, run.bundle, folder, side)
    sides = tuple(patch * size for size in SIZES)
    sampled_images.costs(asked, (side,), run.bundle, run.tree, masks)  # says which method cannot draw it
    drawn = sampled_images.draw(asked, folder, run.bundle, masks, run.tree, run.inline, run.console)
    found = _measure(run, drawn, patch, side)
    costs = sampled_images.costs(asked, sides, run.bundle, run.tree, masks)
    number = len(label_maps.files(masks))
    blocks: list[Block] = [
        Note(summary(found)),
        _table(f"Images of {side} px from patches of {patch} px (Table 1)", QUALITY, found,
               f"{number} images a method, under the same label maps, from the same seed. {INTERVALS}"),
        _costs(found),
        _table(f"Copies, in tiles of {patch} px and resized from {side} px (Table 5)", COPIES, found,
               INTERVALS),
        *_figure_3(costs, sides),
        _figure_11(drawn, side),
        _figure_7(run, run.bundle, patch),
    ]  # fmt: skip
    figures = {
        "side": side,
        "patch_px": patch,
        "images": number,
        "baselines": {one.drawn.method: _figures(one) for one in found},
        "cost_by_side": {
            method: [
                {"side": side, "forwards": total, "sequential": steps}
                for side, (total, steps) in zip(sides, pairs, strict=True)
            ]
            for method, pairs in costs.items()
        },
    }
    return SectionResult(None, blocks, figures)


def summary(found: Sequence[MeasuredMethod]) -> str:
    """Which is nearest to real tissue, and which is cheapest: a comparison is neither good nor poor."""
    best = max(found, key=lambda one: one.tiled.precision.value + one.tiled.recall.value)
    cheapest = min(found, key=lambda one: one.drawn.cost.forwards)
    ip, ir = best.tiled.precision.value, best.tiled.recall.value
    return (
        f"Most like real tissue by IP + IR of tiles: {best.name} ({ip:.2f} + {ir:.2f}, "
        f"{best.drawn.cost.forwards:,.0f} forwards per image). Fewest forwards: "
        f"{cheapest.name} ({cheapest.drawn.cost.forwards:,.0f})."
    )


def _masks(run: EvaluationRun, bundle_at: Path, folder: Path, side: int) -> Path:
    """Label maps for all methods: drawn by the mask model or, without one, real ones of that size."""
    number, training = run.settings.baseline_images, run.sets.training.images
    if "mask_unet" in bundle.read_index(bundle_at):
        asked, out = sampled_images.with_cover(run.tree, "jittered", number, side), str(folder / "sampled")
        driver.synthesize(bundle_at, out, asked, None, run.inline, run.console)
        images = open_images(out)
        return sampled_images.save_label_maps(images.crops(images.largest), folder / "masks")
    hint = ": --set evaluation.baseline_side=…"
    return sampled_images.save_real_label_maps(training, side, number, folder / "masks", hint)


def _measure(run: EvaluationRun, drawn: Sequence[Drawn], patch: int, side: int) -> list[MeasuredMethod]:
    """Scores of tiles and, where there are enough, of whole images, features of all computed in one go."""
    sets, mine = run.sets, [open_images(one.where) for one in drawn]
    real = [sets.training.images, (sets.held_out or sets.training).images]
    limits = (run.settings.training_samples, sets.samples)
    tiled = [
        *(images.crops(patch).drawn(limit) for images, limit in zip(real, limits, strict=True)),
        *(images.crops(patch).drawn(sets.samples) for images in mine),
    ]
    whole = [images.crops(side) for images in (*real, *mine)]
    if sets.held_out is None:
        tiled[1] = tiled[0]
    small = View(resize=patch, jpeg=run.settings.jpeg)
    asked = [(crops, run.view) for crops in tiled]
    if all(len(crops) >= LEAST for crops in whole):
        asked += [(crops, small) for crops in whole]
    features = [one.values for one in run.extract(asked)]

    real_ones = [(tiled, features[: len(tiled)])]
    if len(features) > len(tiled):
        real_ones.append((whole, features[len(tiled) :]))
    judges = [judge(run, values, numbered(crops[:2])) for crops, values in real_ones]
    of_real = dict[int, Measured]()

    def scores(which: int, number: int) -> Scores:
        crops, values = real_ones[which]
        sources = numbered([*crops[:2], crops[number]])[2]
        return judges[which].scores(values[number], sources, run.settings.bootstrap)

    return [
        MeasuredMethod(
            drawn=one,
            tiled=scores(0, number),
            resized=scores(1, number) if len(judges) > 1 else None,
            large=_large(run, whole[number], patch, of_real),
        )
        for number, one in enumerate(drawn, 2)
    ]


def _large(run: EvaluationRun, whole: RegionSet, patch: int, real: dict[int, Measured]) -> Large | None:
    """Seams and correlation, in images or parts of them as large as real regions are.

    `real` keeps what was measured of the real images, by their side.
    """
    side = largest((run.sets.training, whole), patch)
    crops = [one.images.crops(side).drawn(MOST) for one in (whole, run.sets.training)]
    if side <= patch or min(map(len, crops)) < 2:
        return None
    if side not in real:
        real[side] = measured(run, crops[1], patch)
    return compare(measured(run, crops[0], patch), real[side], patch, run.sets.mpp, run.settings.bootstrap)


def _table(title: str, columns: Sequence[RowSpec], found: Sequence[MeasuredMethod], note: str = "") -> Table:
    """A row per method."""
    rows = [
        [one.name, *(cell(figure(one), digits, span, times) for _, figure, digits, span, times, _ in columns)]
        for one in found
    ]
    return Table(title, ["", *(column[0] for column in columns)], rows, note)


def _costs(found: Sequence[MeasuredMethod]) -> Table:
    rows = [
        [one.name, f"{cost.forwards:,.0f}", f"{cost.sequential:,}",
         "–" if cost.seconds is None else f"{cost.seconds:.1f}"]
        for one in found for cost in [one.drawn.cost]
    ]  # fmt: skip
    note = (
        "Forwards of a base patch; in sequence: those that wait for others; both are counted, and so have no "
        "interval. Seconds of a sampler, measured once, so without one."
    )
    return Table("What an image costs", ["", "forwards", "in sequence", "seconds"], rows, note)


def _figure_3(costs: dict[str, list[tuple[int, int]]], sides: Sequence[int]) -> list[Block]:
    return [
        Plot(
            title,
            plots.lines(
                sides, {METHODS[method]: [pair[which] for pair in pairs] for method, pairs in costs.items()},
                "side of the image, px", label, logx=True, logy=True,
            ),
            caption,
        )
        for which, title, label, caption in (
            (1, "Steps that wait for one another (Fig. 3)", "steps in sequence",
             "With samplers enough, this is the time an image takes."),
            (0, "Forwards", "forwards per image", "On one sampler, this is the time an image takes."),
        )
    ]  # fmt: skip


def _figure_11(drawn: Sequence[Drawn], side: int) -> Gallery:
    every = [(METHODS[one.method], open_images(one.where).crops(side)) for one in drawn]
    shown = [
        tile(crops, number, None, name)  # seams are looked for: no masks
        for number in range(SHOWN)
        for name, crops in every
        if number < len(crops)
    ]
    return Gallery("The same label maps, by each method (Fig. 11)", shown, large=True)


def _figure_7(run: EvaluationRun, bundle_at: Path, patch: int) -> Gallery:
    """Nested squares as label maps, at one, two and four patches a side (Figs. 6 and 7)."""
    sides = run.settings.squares or tuple(patch * size for size in SQUARES)
    labels = bundle.load(bundle_at, weights=False).labels
    masks, out = run.folder / "baselines" / "squares-masks", run.folder / "baselines" / "squares"
    sampled_images.save_squares(masks, sides, len(labels))
    one = sampled_images.with_cover(run.tree, run.tree.sampling.cover, len(sides))
    driver.synthesize(bundle_at, str(out), one, masks, run.inline, run.console)
    images = open_images(str(out))
    shown = []
    keys = list(dict.fromkeys(region.image for region in images.regions(images.largest)))
    for key, side in zip(keys, sorted(sides), strict=True):  # in the order of the label maps' names
        region = next(r for r in images.regions(side) if r.image == key)
        shown.append(tile(RegionSet(images, (region,)), 0, labels, f"{side} px"))
    title = "Control by the mask: nested squares at several sizes (Figs. 6, 7)"
    return Gallery(title, shown, legend=legend(labels), large=True)


def _figures(one: MeasuredMethod) -> Any:
    def of(scores: Scores | None) -> dict[str, Any] | None:
        return None if scores is None else {
            "ip": scores.precision, "ir": scores.recall, "authenticity": scores.memory.authenticity,
            "c_t": scores.memory.data_copying,
        }  # fmt: skip

    return as_json({
        "name": one.name,
        "tiled": of(one.tiled),
        "resized": of(one.resized),
        "large": one.large and one.large.to_json(),
        "cost": one.drawn.cost,
    })  # fmt: skip
