"""How do ways to draw large images compare? Tables 1 and 5 and Figs. 3, 6, 7 and 11 of the paper."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffgen import config
from diffgen.errors import UserError
from diffgen.evaluation import baselines, plots, tiles
from diffgen.evaluation.baselines import METHODS, Drawn
from diffgen.evaluation.bootstrap import as_json
from diffgen.evaluation.features import View
from diffgen.evaluation.fidelity import precision_recall
from diffgen.evaluation.images import RegionSet, open_images
from diffgen.evaluation.large import Large
from diffgen.evaluation.memorization import Memorization, evaluate_memorization
from diffgen.evaluation.page import Block, Gallery, Interval, Note, Plot, Section, Table, Tile
from diffgen.evaluation.run import EvaluationRun, SectionResult
from diffgen.evaluation.sections.cells import cell, legend, tile
from diffgen.evaluation.sections.large import MOST, measured
from diffgen.evaluation.sets import LEAST, numbered
from diffgen.models import bundle
from diffgen.synthesis import driver

TITLE = "How do the ways to draw large images compare?"
SIZES = (1, 2, 4, 8, 16)
"""Of Fig. 3, in patches."""
SQUARES = (1, 2, 4)
"""Of Figs. 6 and 7: the paper's 512, 1024 and 2048 pixels with patches of 512."""
SHOWN = 3
BLIND = (
    "All methods use one bundle, which was trained for one of them: wide crops at high noise serve the "
    "jittered grid, the others take what they know.",
    "Few images: IP and IR of small sets are rough, and no interval is given for them.",
)


@dataclass(frozen=True)
class Measured:
    """One method's images, in figures."""

    drawn: Drawn
    tiled: tuple[float, float]
    """IP and IR of tiles of a patch's size."""
    resized: tuple[float, float] | None
    memory: Memorization
    memory_resized: Memorization | None
    large: Large | None


def build(run: EvaluationRun, bundle_at: Path, settings: config.Settings) -> SectionResult:
    """Images of every method under the same label maps, and what they cost."""
    asked = settings.evaluation.baselines
    facts = bundle.load(bundle_at, weights=False).facts
    patch = facts.image_patch * facts.factor
    side = settings.evaluation.baseline_side or SQUARES[-1] * patch
    folder, how = run.folder / "baselines", run.how("baselines")
    masks = _masks(run, bundle_at, settings, folder, side)
    drawn = baselines.draw(asked, folder, bundle_at, masks, settings, run.inline, run.console)
    found = _measure(run, drawn, patch, side)
    costs = baselines.costs(asked, tuple(patch * size for size in SIZES), bundle_at, settings, masks)
    number = len(list(masks.glob("*.png")))
    blocks: list[Block] = [
        Note(summary(found)),
        *_tables(found, patch, side, number, how),
        _memory(found, patch, side, how),
        *_figure_3(costs, patch, how),
        _figure_11(drawn, side, how),
        _figure_7(run, bundle_at, settings, patch, how),
    ]
    return SectionResult(
        Section("baselines", TITLE, None, blocks, BLIND),
        {
            "side": side,
            "patch_px": patch,
            "images": number,
            "baselines": {one.drawn.method: _figures(one) for one in found},
            "cost_by_side": {
                method: [
                    {"side": patch * size, "forwards": total, "sequential": steps}
                    for size, (total, steps) in zip(SIZES, pairs, strict=True)
                ]
                for method, pairs in costs.items()
            },
        },
    )


def summary(found: Sequence[Measured]) -> str:
    """Which is nearest to real tissue, and which is cheapest: a comparison is neither good nor poor."""
    best = max(found, key=lambda one: sum(one.tiled))
    cheapest = min(found, key=lambda one: one.drawn.cost.forwards)
    return (
        f"Most like real tissue by IP + IR of tiles: {METHODS[best.drawn.method]} ({best.tiled[0]:.2f} + "
        f"{best.tiled[1]:.2f}, {best.drawn.cost.forwards:,.0f} forwards per image). Fewest forwards: "
        f"{METHODS[cheapest.drawn.method]} ({cheapest.drawn.cost.forwards:,.0f})."
    )


def _masks(run: EvaluationRun, bundle_at: Path, settings: config.Settings, folder: Path, side: int) -> Path:
    """Label maps for all methods: drawn by the mask model or, without one, real ones of that size."""
    number = settings.evaluation.baseline_images
    into = folder / "masks"
    if "mask_unet" in bundle.read_index(bundle_at):
        first = baselines.with_cover(settings, "jittered", number)
        synthesis = first.synthesis.model_copy(update={"size": str(side)})
        driver.synthesize(
            bundle_at, str(folder / "sampled"), first.model_copy(update={"synthesis": synthesis}), None,
            run.inline, run.console,
        )  # fmt: skip
        return baselines.label_maps_of(str(folder / "sampled"), into)
    crops = RegionSet(run.sets.training.images, tuple(run.sets.training.images.regions(side))).labelled
    if not len(crops):
        raise UserError(
            f"the bundle has no mask model, and {run.sets.training.images.where} has no label maps of "
            f"{side} pixels to fill: --set evaluation.baseline_side=…"
        )
    return baselines.save_label_maps(crops.drawn(number), into)


def _measure(run: EvaluationRun, drawn: Sequence[Drawn], patch: int, side: int) -> list[Measured]:
    sets = run.sets
    real = [sets.training.images, *([sets.held_out.images] if sets.held_out else [])]
    tiles_of_real = [
        RegionSet(images, tuple(images.regions(patch))).drawn(limit)
        for images, limit in zip(real, (run.settings.training_samples, sets.samples), strict=False)
    ]
    wholes_of_real = [RegionSet(images, tuple(images.regions(side))) for images in real]
    mine = [open_images(one.where) for one in drawn]
    tiled = [RegionSet(images, tuple(images.regions(patch))).drawn(sets.samples) for images in mine]
    whole = [RegionSet(images, tuple(images.regions(side))) for images in mine]
    compare_wholes = all(len(crops) >= LEAST for crops in (*wholes_of_real, *whole))
    small = View(resize=patch, jpeg=run.settings.jpeg)
    asked = [(crops, run.view) for crops in (*tiles_of_real, *tiled)]
    asked += [(crops, small) for crops in (*wholes_of_real, *whole)] if compare_wholes else []
    features = [one.values for one in run.extract(asked)]
    at = len(tiles_of_real)
    found = []
    for number, one in enumerate(drawn):
        of_tiles = [*tiles_of_real, tiled[number]]
        first = [*features[:at], features[at + number]]
        pair, memory = _figures_of(run, of_tiles, first)
        resized = memory_resized = None
        if compare_wholes:
            rest = features[at + len(drawn) :]
            resized, memory_resized = _figures_of(
                run, [*wholes_of_real, whole[number]], [*rest[:at], rest[at + number]]
            )
        found.append(Measured(one, pair, resized, memory, memory_resized, _large(run, whole[number], patch)))
    return found


def _figures_of(
    run: EvaluationRun, crops: Sequence[RegionSet], features: Sequence[np.ndarray]
) -> tuple[tuple[float, float], Memorization]:
    """IP and IR against held-out regions (else training ones), and memorization; the method's set is last."""
    held = features[1] if len(features) == 3 else None
    rest, mine = features[-2], features[-1]
    count = min(len(rest), len(mine))
    rows = [np.random.default_rng(0).permutation(len(one))[:count] for one in (rest, mine)]
    balls = precision_recall(rest[rows[0]], mine[rows[1]], run.settings.k)
    of = numbered(crops)
    memory = evaluate_memorization(
        features[0], mine, held, of[0], of[-1], of[1] if held is not None else None,
        count=run.settings.bootstrap,
    )  # fmt: skip
    return (float(balls.precise.mean()), float(balls.recalled.mean())), memory


def _large(run: EvaluationRun, whole: RegionSet, patch: int) -> Large | None:
    """Seams and correlation, in images or parts of them as large as real regions are."""
    real = run.sets.training.images
    side = min(whole.side, real.largest)
    side -= side % patch if side > patch else 0
    crops = [RegionSet(images, tuple(images.regions(side))).drawn(MOST) for images in (whole.images, real)]
    if side <= patch or min(map(len, crops)) < 2:
        return None
    return measured(run, crops[0], crops[1], patch)


def _tables(found: Sequence[Measured], patch: int, side: int, number: int, how: str) -> list[Block]:
    quality: list[list[str | Interval]] = []
    for one in found:
        large, resized = one.large, one.resized or (None, None)
        quality.append([
            METHODS[one.drawn.method],
            cell(one.tiled[0], 2, None), cell(one.tiled[1], 2, None),
            cell(resized[0], 2, None), cell(resized[1], 2, None),
            cell(large.synthetic.seam if large else None, 2, None),
            cell(large.correlation_error if large else None, 2, None),
        ])  # fmt: skip
    costs = [(METHODS[one.drawn.method], one.drawn.cost) for one in found]
    return [
        Table(
            f"Images of {side} px from patches of {patch} px (Table 1)",
            ["", "IP, tiled", "IR, tiled", "IP, resized", "IR, resized", "seams", "correlation, error"],
            quality,
            note=f"{number} images a method, under the same label maps, from the same seed.",
            command=how,
        ),
        Table(
            "What an image costs",
            ["", "forwards", "in sequence", "seconds"],
            [
                [name, f"{cost.forwards:,.0f}", f"{cost.sequential:,}",
                 "–" if cost.seconds is None else f"{cost.seconds:.1f}"]
                for name, cost in costs
            ],
            note="Forwards of a base patch; in sequence: those that wait for others; seconds of a sampler.",
            command=how,
        ),
    ]  # fmt: skip


def _memory(found: Sequence[Measured], patch: int, side: int, how: str) -> Table:
    def c_t(memory: Memorization | None) -> str | Interval:
        return cell(memory.data_copying.c_t if memory and memory.data_copying else None, 1, None)

    return Table(
        f"Copies, in tiles of {patch} px and resized from {side} px (Table 5)",
        ["", "A, tiled", "A, resized", "C_T, tiled", "C_T, resized"],
        [
            [
                METHODS[one.drawn.method],
                cell(one.memory.authenticity),
                cell(one.memory_resized.authenticity if one.memory_resized else None),
                c_t(one.memory),
                c_t(one.memory_resized),
            ]
            for one in found
        ],
        command=how,
    )


def _figure_3(costs: dict[str, list[tuple[int, int]]], patch: int, how: str) -> list[Block]:
    x = [patch * size for size in SIZES]
    return [
        Plot(
            title,
            plots.lines(
                x,
                {METHODS[method]: [pair[which] for pair in pairs] for method, pairs in costs.items()},
                "side of the image, px", label, logx=True, logy=True,
            ),
            caption,
            how,
        )
        for which, title, label, caption in (
            (1, "Steps that wait for one another (Fig. 3)", "steps in sequence",
             "With samplers enough, this is the time an image takes."),
            (0, "Forwards", "forwards per image", "On one sampler, this is the time an image takes."),
        )
    ]  # fmt: skip


def _figure_11(drawn: Sequence[Drawn], side: int, how: str) -> Gallery:
    shown = []
    for number in range(SHOWN):
        for one in drawn:
            images = open_images(one.where)
            crops = RegionSet(images, tuple(images.regions(side)))
            if number < len(crops):
                shown.append(tile(crops, number, None, METHODS[one.method]))  # seams are looked for: no masks
    return Gallery("The same label maps, by each method (Fig. 11)", shown, command=how, large=True)


def _figure_7(
    run: EvaluationRun, bundle_at: Path, settings: config.Settings, patch: int, how: str
) -> Gallery:
    """Nested squares as label maps, at one, two and four patches a side (Figs. 6 and 7)."""
    sides = settings.evaluation.squares or tuple(patch * size for size in SQUARES)
    labels = bundle.load(bundle_at, weights=False).labels
    masks, out = run.folder / "baselines" / "squares-masks", run.folder / "baselines" / "squares"
    baselines.save_squares(masks, sides, len(labels))
    one = baselines.with_cover(settings, settings.sampling.cover, len(sides))
    driver.synthesize(bundle_at, str(out), one, masks, run.inline, run.console)
    images = open_images(str(out))
    shown = []
    keys = list(dict.fromkeys(region.image for region in images.regions(images.largest)))
    for key, side in zip(keys, sorted(sides), strict=True):  # in the order of the label maps' names
        region = next(r for r in images.regions(side) if r.image == key)
        picture, label_map = images.read(region)
        overlay = None if label_map is None else tiles.overlay(label_map, labels)
        shown.append(Tile(tiles.picture(picture), overlay, f"{side} px"))
    return Gallery(
        "Control by the mask: nested squares at several sizes (Figs. 6, 7)", shown, command=how,
        legend=legend(labels), large=True,
    )  # fmt: skip


def _figures(one: Measured) -> Any:
    return as_json({
        "name": METHODS[one.drawn.method],
        "tiled": {"ip": one.tiled[0], "ir": one.tiled[1], "authenticity": one.memory.authenticity,
                  "c_t": one.memory.data_copying},
        "resized": None if one.resized is None or one.memory_resized is None else {
            "ip": one.resized[0], "ir": one.resized[1], "authenticity": one.memory_resized.authenticity,
            "c_t": one.memory_resized.data_copying,
        },
        "large": one.large and one.large.to_json(),
        "cost": one.drawn.cost,
    })  # fmt: skip
