"""Images that are drawn for an evaluation: those of a bundle, and of several ways to draw large ones.

Each resumes where it was stopped. All ways (Table 1 and Fig. 3 of the paper) fill the same label maps from
the same seed with the same solver, steps and guidance, by one engine. What differs is how patches are laid,
and so what a pixel knows of its surroundings.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from diffgen import config, label_maps
from diffgen.errors import IncompleteError, UserError
from diffgen.evaluation.images import Images, RegionSet, open_images
from diffgen.evaluation.sets import USUAL
from diffgen.labels import LabelMap
from diffgen.models import bundle
from diffgen.sampling.denoise import forwards
from diffgen.storage import atomic, write_text
from diffgen.synthesis import driver
from diffgen.synthesis.plan import Plan, make_plan

METHODS: Mapping[str, str] = {
    "jittered": "diffgen (jittered grid)",
    "random": "DiffInfinite (random patches)",
    "diffcollage": "DiffCollage",
    "multidiffusion": "MultiDiffusion",
    "outpaint": "outpainting (sliding window)",
}
"""`sampling.cover` and what it is called."""


@dataclass(frozen=True)
class SamplingCost:
    """What a method takes for an image."""

    forwards: float
    """Of the image model, counted in base patches."""
    sequential: int
    """Forwards that wait for one another, whatever the number of samplers."""
    seconds: float | None
    """Of one sampler, denoising and decoding; None where the run was resumed."""


@dataclass(frozen=True)
class Drawn:
    """Images of one method."""

    method: str
    where: str
    cost: SamplingCost


def is_bundle(where: str) -> bool:
    return "://" not in where and (Path(where) / bundle.INDEX).exists()


def sampled(
    bundle_at: Path, real: str, out: Path, settings: config.Settings, inline: bool, console: Console
) -> str:
    """Where the images are. A bundle without a mask model fills label maps of the training set.

    These have 512 px at most. Resumes where it was stopped. Raises `UserError` where neither is there, or
    the bundle cannot be sampled.
    """
    n, masks = settings.evaluation.images, None
    if "mask_unet" not in bundle.read_index(bundle_at):
        images, factor = open_images(real, "train"), bundle.load(bundle_at, weights=False).facts.factor
        side = min(images.largest, USUAL) // factor * factor
        masks = save_real_label_maps(images, side, n, out.with_name("masks"))
    console.print(f"{n} images of {bundle_at}: {out}")
    synthesis = settings.synthesis.model_copy(update={"n": n})
    chosen = settings.model_copy(update={"synthesis": synthesis})
    try:
        driver.synthesize(bundle_at, str(out), chosen, masks, inline, console)
    except IncompleteError as error:
        console.print(f"[yellow]{error}[/]")
    return str(out)


def draw(
    methods: tuple[str, ...], folder: Path, bundle_at: Path, masks: Path, settings: config.Settings,
    inline: bool, console: Console,
) -> list[Drawn]:  # fmt: skip
    """Images of every method under the label maps of a folder; resumes where it was stopped."""
    number = len(label_maps.files(masks))
    drawn = []
    for method in methods:
        out = folder / method
        of_method = with_cover(settings, method, number)
        console.print(f"{METHODS[method]}: {number} images, {out}")
        done = driver.synthesize(bundle_at, str(out), of_method, masks, inline, console)
        told = folder / f"{method}.json"
        if done.made == number:
            busy = sum(done.status.busy.values())
            write_text(told, json.dumps({"seconds": busy / number}) + "\n")
        seconds = json.loads(told.read_text())["seconds"] if told.exists() else None
        plan = make_plan(bundle.pack(bundle_at), bundle_at, of_method, masks)
        drawn.append(Drawn(method, str(out), SamplingCost(*_counted(plan, number), seconds)))
    return drawn


def with_cover(
    settings: config.Settings, method: str, number: int, side: int | None = None
) -> config.Settings:
    """The same settings with another cover, for `number` whole images, of a side in pixels if it is given."""
    tree = settings.model_dump(mode="json")
    tree["sampling"]["cover"] = method
    tree["synthesis"] |= {"n": number, "emit": "images"} | ({"size": str(side)} if side else {})
    return config.validate(tree)


def _counted(plan: Plan, number: int) -> tuple[float, int]:
    """Forwards per image (mean) and in sequence, exactly, by the covers themselves."""
    model, factor, counts = plan.model("image"), plan.facts.factor, []
    for index, (name, data) in enumerate(plan.masks[:number]):
        label_map = label_maps.on_grid(label_maps.read(data, name), factor)
        height, width = label_map.shape
        counts.append(forwards(label_map, model.covers(height, width, index), *model.guidance))
    height, width = (side // factor for side in plan.size_of(0))
    return sum(counts) / len(counts), len(list(model.covers(height, width, 0)))


def save_label_maps(crops: RegionSet, folder: Path) -> Path:
    """Label maps of regions as a folder of PNGs that `diffgen synthesize --masks` fills, and that folder."""
    _save({f"{number:06d}.png": label_map for number, label_map in enumerate(crops.label_maps())}, folder)
    return folder


def save_real_label_maps(images: Images, side: int, number: int, folder: Path, hint: str = "") -> Path:
    """At most `number` label maps of real regions, for a bundle without a mask model to fill.

    `UserError`, with a hint, where there is none.
    """
    crops = images.crops(side).labelled
    if not len(crops):
        raise UserError(
            f"the bundle has no mask model, and {images.where} has no label maps of {side} pixels to fill "
            f"instead{hint}"
        )
    return save_label_maps(crops.drawn(number), folder)


def _save(label_maps: Mapping[str, LabelMap], folder: Path) -> None:
    """These and no others: those of an earlier evaluation, of other images or sizes, go."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.png"):
        if path.name not in label_maps:
            path.unlink()
    for name, label_map in label_maps.items():
        with atomic(folder / name) as file:
            Image.fromarray(label_map).save(file, "PNG")


def costs(
    methods: tuple[str, ...], sides: tuple[int, ...], bundle_at: Path, settings: config.Settings, masks: Path
) -> dict[str, list[tuple[int, int]]]:
    """Forwards and those in sequence by method, for square images of each side in pixels (Fig. 3).

    Under a label map of one class, so that only the size counts.
    """
    packed, found = bundle.pack(bundle_at), dict[str, list[tuple[int, int]]]()
    for method in methods:
        plan = make_plan(packed, bundle_at, with_cover(settings, method, 1), masks)
        model, factor = plan.model("image"), plan.facts.factor
        for side in sides:
            label_map = np.ones((side // factor, side // factor), np.uint8)
            covers = model.covers(*label_map.shape, 0)
            count = forwards(label_map, covers, *model.guidance)
            found.setdefault(method, []).append((count, len(list(covers))))
    return found


def save_squares(folder: Path, sides: Sequence[int], classes: int) -> None:
    """Label maps of nested squares for images of each side, a class each from the outside in (Fig. 7)."""
    label_maps = {}
    for side in sides:
        label_map = np.full((side, side), 1, np.uint8)
        for number in range(2, classes):
            edge = round(side * (number - 1) / (2 * classes - 2))
            label_map[edge : side - edge, edge : side - edge] = number
        label_maps[f"{side:06d}.png"] = label_map
    _save(label_maps, folder)
