"""Images of a bundle that is evaluated: sampled first, as `diffgen synthesize` does it, and kept."""

from pathlib import Path

from rich.console import Console

from diffgen import config
from diffgen.errors import IncompleteError
from diffgen.evaluation.baseline_images import save_real_label_maps
from diffgen.evaluation.images import open_images
from diffgen.evaluation.sets import USUAL
from diffgen.models.bundle import INDEX, load, read_index


def is_bundle(where: str) -> bool:
    return "://" not in where and (Path(where) / INDEX).exists()


def sampled(
    bundle: Path, real: str, out: Path, settings: config.Settings, inline: bool, console: Console
) -> str:
    """Where the images are. A bundle without a mask model fills label maps of the training set.

    These have 512 px at most. Resumes where it was stopped. Raises `UserError` where neither is there, or
    the bundle cannot be sampled.
    """
    from diffgen.synthesis import driver

    n, masks = settings.evaluation.images, None
    if "mask_unet" not in read_index(bundle):
        images, factor = open_images(real, "train"), load(bundle, weights=False).facts.factor
        side = min(images.largest, USUAL) // factor * factor
        masks = save_real_label_maps(images, side, n, out.with_name("masks"))
    console.print(f"{n} images of {bundle}: {out}")
    synthesis = settings.synthesis.model_copy(update={"n": n})
    chosen = settings.model_copy(update={"synthesis": synthesis})
    try:
        driver.synthesize(bundle, str(out), chosen, masks, inline, console)
    except IncompleteError as error:
        console.print(f"[yellow]{error}[/]")
    return str(out)
