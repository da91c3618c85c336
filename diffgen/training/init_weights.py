"""`diffgen train --init-from BUNDLE`: a U-Net that begins with the weights of another.

What belongs to a class or a context follows its name, not its number: the other bundle may have them in
another order, or lack some. Those new here keep their fresh weights, and so do first and last layer of a mask
model whose classes take another number of bits. All else must fit exactly.
"""

from collections.abc import Sequence

import torch

from diffgen import config
from diffgen.errors import UserError
from diffgen.labels import Labels
from diffgen.models.attention import MaskedCrossAttention
from diffgen.models.bundle import Bundle, ModelName
from diffgen.models.unet import ImageUNet, MaskUNet

SHAPE = ("channels", "width", "multipliers", "blocks", "heads", "head_channels")
OF_BITS = ("trunk.first.weight", "trunk.last.weight", "trunk.last.bias")
"""Weights that have a row or a column per bit of a class id."""
OF_CONTEXTS = ("context.weight", "embed_context.weight")
"""Weights of the mask and of the image model that have a row per context, and one for ∅."""
NULL = ""  # the name of ∅, which no context has


def init_from(
    unet: ImageUNet | MaskUNet,
    part: ModelName,
    source: Bundle,
    labels: Labels,
    settings: config.Settings,
    where: str,
) -> str:
    """Copy the weights of a bundle's U-Net into `unet`; one line for the user of what was done.

    `labels` and `settings` are those of the new training, `where` the bundle as the user named it.
    Raises `UserError` as `check` does.
    """
    check(unet, part, source, settings, where)
    theirs_unet = _unet(part, source, where)
    given = theirs_unet.state_dict()
    weights = {name: tensor.detach().clone() for name, tensor in unet.state_dict().items()}
    by_name, fresh = _rows_by_name(unet), _fresh(unet, theirs_unet, settings)
    for name, tensor in weights.items():
        if name in by_name:
            theirs, ours = (_names(name, of) for of in (source.labels, labels))
            old = [theirs.index(word) for word in ours if word in theirs]
            new = [row for row, word in enumerate(ours) if word in theirs]
            tensor[new] = given[name][old].to(tensor)
        elif name not in fresh:
            tensor.copy_(given[name])
    unet.load_state_dict(weights)
    bits = ""
    if fresh:
        ours_take, theirs_take = (u.config["channels"] for u in (unet, theirs_unet))
        bits = f", classes take {ours_take} bits instead of {theirs_take}: first and last layer are new"
    return f"{part} model: starts from {where}{bits}" + _remarks(part, source, labels)


def check(
    unet: ImageUNet | MaskUNet, part: ModelName, source: Bundle, settings: config.Settings, where: str
) -> None:
    """Whether a U-Net (on any device, the meta device too) can begin with the weights of a bundle.

    Raises `UserError` where the bundle lacks the model, or where shape, prediction type, time steps or
    the encoding of label maps differ.
    """
    given = _unet(part, source, where)
    fresh = _fresh(unet, given, settings)
    for what in SHAPE[1:] if fresh else SHAPE:
        _same(where, f"{part} U-Net has {what}", _plain(given.config[what]), _plain(unet.config[what]))
    if missing := sorted(set(unet.state_dict()) ^ set(given.state_dict())):
        ours, theirs = ([*u.config["attention"], "of", u.config["patch"]] for u in (unet, given))
        raise UserError(
            f"{where}: its {part} U-Net has attention at sides {_plain(theirs)}, this one {_plain(ours)} "
            f"({missing[0]} is in one alone)"
        )
    by_name = _rows_by_name(unet)
    for name, tensor in given.state_dict().items():
        if name in fresh:
            continue
        skip = 1 if name in by_name else 0
        shapes = tuple(tensor.shape[skip:]), tuple(unet.state_dict()[name].shape[skip:])
        _same(where, f"{part} U-Net has a {name} of shape", *shapes)
    diffusion, schedule = settings.diffusion, source.schedule
    _same(where, "models predict", schedule["prediction_type"], diffusion.prediction)
    _same(where, "schedule has time steps:", schedule["num_train_timesteps"], diffusion.steps)
    if part == "mask":
        encoding = settings.mask_model.encoding
        _same(where, "mask U-Net works on", source.facts.mask_encoding, encoding)


def _same(where: str, what: str, theirs: object, ours: object) -> None:
    if theirs != ours:
        raise UserError(f"{where}: its {what} {theirs}, this one {ours}")


def _plain(value: object) -> object:
    """Lists and tuples alike, as they are written in settings."""
    return " ".join(str(item) for item in value) if isinstance(value, Sequence) else value


def _unet(part: ModelName, source: Bundle, where: str) -> ImageUNet | MaskUNet:
    unet = source.image_unet if part == "image" else source.mask_unet
    if unet is None:
        raise UserError(f"{where} holds no {part} U-Net; train that one without --init-from")
    return unet


def _names(weight: str, labels: Labels) -> tuple[str, ...]:
    """What the rows of one of `_rows_by_name` belong to."""
    return (NULL, *labels.contexts) if weight in OF_CONTEXTS else labels.classes


def _rows_by_name(unet: torch.nn.Module) -> set[str]:
    """Weights that have a row per class, or a row per context."""
    asking = [name for name, module in unet.named_modules() if isinstance(module, MaskedCrossAttention)]
    known = {
        *OF_CONTEXTS,
        "label.weight",
        "label_pixels.weight",
        *(f"{name}.query.weight" for name in asking),
    }
    return known & unet.state_dict().keys()


def _fresh(
    unet: ImageUNet | MaskUNet, given: ImageUNet | MaskUNet, settings: config.Settings
) -> tuple[str, ...]:
    """Weights that cannot be taken: classes that take another number of bits."""
    bits = isinstance(unet, MaskUNet) and settings.mask_model.encoding == "bits"
    return OF_BITS if bits and unet.config["channels"] != given.config["channels"] else ()


def _remarks(part: ModelName, source: Bundle, ours: Labels) -> str:
    """What is new here; and, for the mask model, which classes its label maps wrote in another way."""
    theirs = source.labels
    pairs = {"contexts": (ours.contexts, theirs.contexts)}
    if part == "image":
        pairs = {"classes": (ours.classes, theirs.classes)} | (pairs if source.facts.image_contexts else {})
    new = {what: [name for name in mine if name not in known] for what, (mine, known) in pairs.items()}
    remarks = "".join(f", {what} new here: {', '.join(names)}" for what, names in new.items() if names)
    greys = source.facts.mask_encoding == "latents" and len(theirs) != len(
        ours
    )  # levels lie closer, or wider
    ids = {name: number for number, name in enumerate(theirs.classes)}
    moved = [
        name for number, name in enumerate(ours.classes) if name in ids and (greys or ids[name] != number)
    ]
    if part == "mask" and moved:
        remarks += f", classes to be learned anew, whose id or grey was another: {', '.join(moved)}"
    return remarks
