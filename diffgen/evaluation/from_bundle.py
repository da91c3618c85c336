"""Images of a bundle that is evaluated: sampled first, as `diffgen synthesize` does it, and kept."""

from pathlib import Path

from rich.console import Console

from diffgen import config
from diffgen.errors import IncompleteError, UserError
from diffgen.evaluation.baselines import save_label_maps
from diffgen.evaluation.images import RegionSet, open_images
from diffgen.evaluation.sets import USUAL
from diffgen.models.bundle import INDEX, load, read_index


def is_bundle(where: str) -> bool:
    return "://" not in where and (Path(where) / INDEX).exists()


def sampled(
    bundle: Path, real: str, out: Path, settings: config.Settings, inline: bool, console: Console
) -> str:
    """Where the images are. A bundle without a mask model fills label maps of the training set.

    Goes on where it was stopped. Raises `UserError` where neither is there, or the bundle cannot be sampled.
    """
    from diffgen.synthesis import driver

    n, factor = settings.evaluation.images, load(bundle, weights=False).facts.factor
    masks = (
        None
        if "mask_unet" in read_index(bundle)
        else real_masks(real, n, factor, out.with_name("masks"), settings)
    )
    console.print(f"{n} images of {bundle}: {out}")
    synthesis = settings.synthesis.model_copy(update={"n": n})
    chosen = settings.model_copy(update={"synthesis": synthesis})
    try:
        driver.synthesize(bundle, str(out), chosen, masks, inline, console)
    except IncompleteError as error:
        console.print(f"[yellow]{error}[/]")
    return str(out)


def real_masks(real: str, number: int, factor: int, folder: Path, settings: config.Settings) -> Path:
    """A folder of `number` label maps of real training regions, as large as these are, 512 px at most."""
    images = open_images(real, "train", settings.evaluation.assume_mpp)
    side = min(images.largest, USUAL) // factor * factor
    crops = RegionSet(images, tuple(images.regions(side))).labelled
    if not len(crops):
        raise UserError(f"the bundle has no mask model, and {real} has no label maps to fill instead")
    return save_label_maps(crops.drawn(number), folder)
