"""A bundle of two: the image model of one run and the mask model of another."""

import tempfile
from dataclasses import fields, replace
from pathlib import Path

from diffgen import config
from diffgen.errors import UserError
from diffgen.models import bundle
from diffgen.storage import Folder


def join(image_from: Path, mask_from: Path, out: Path) -> None:
    """A bundle of the image model of one and the mask model of another; `UserError` if they do not fit."""
    drawn, maps = bundle.load(image_from), bundle.load(mask_from)
    for what, mine, theirs in (
        ("classes", drawn.labels.classes, maps.labels.classes),
        ("contexts", drawn.labels.contexts, maps.labels.contexts),
        ("µm per pixel", drawn.facts.mpp, maps.facts.mpp),
    ):
        if mine != theirs:
            raise UserError(f"{image_from} and {mask_from} have other {what}: {mine} and {theirs}")
    of_masks = {
        part.name: getattr(maps.facts, part.name) for part in fields(maps.facts) if "mask" in part.name
    }
    drawn.facts = replace(drawn.facts, **of_masks)
    drawn.mask_unet, drawn.mask_codec = maps.mask_unet, maps.mask_codec
    own, other = (
        config.validate(config.read_yaml(path / "settings.yaml")) for path in (image_from, mask_from)
    )
    training = own.training.model_copy(update={"mask": other.training.mask})
    settings = own.model_copy(update={"mask_model": other.mask_model, "training": training})
    with tempfile.TemporaryDirectory() as scratch:
        built = Path(scratch) / "bundle"
        bundle.save(drawn, built, settings, (image_from / bundle.CARD).read_text(encoding="utf-8"))
        put(built, out)


def put(folder: Path, out: Path) -> None:
    """A copy of a folder in place as `out`, whole or not at all."""
    Folder(str(out.parent)).push(folder, out.name)
