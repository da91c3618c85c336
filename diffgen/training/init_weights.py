"""`diffgen train --init-from BUNDLE`: a U-Net that begins with the weights of another.

What belongs to a class or a context follows its name, not its number: the other bundle may have them in
another order, or lack some. Those new here keep their fresh weights. All else must fit exactly.
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
NULL = ""  # the name of the mask model's ∅, which no context has


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
    theirs, ours = _names(part, source.labels), _names(part, labels)
    given = _unet(part, source, where).state_dict()
    weights = {name: tensor.detach().clone() for name, tensor in unet.state_dict().items()}
    by_name = _rows_by_name(unet)
    old = [theirs.index(name) for name in ours if name in theirs]
    new = [row for row, name in enumerate(ours) if name in theirs]
    for name, tensor in weights.items():
        if name in by_name:
            tensor[new] = given[name][old].to(tensor)
        else:
            tensor.copy_(given[name])
    unet.load_state_dict(weights)
    return f"{part} model: starts from {where}" + _remarks(part, source, labels)


def check(
    unet: ImageUNet | MaskUNet, part: ModelName, source: Bundle, settings: config.Settings, where: str
) -> None:
    """Whether a U-Net (on any device, the meta device too) can begin with the weights of a bundle.

    Raises `UserError` where the bundle lacks the model, or where shape, prediction type, time steps or
    the encoding of label maps differ.
    """
    given = _unet(part, source, where)
    for what in SHAPE:
        _same(where, f"{part} U-Net has {what}", _plain(given.config[what]), _plain(unet.config[what]))
    if missing := sorted(set(unet.state_dict()) ^ set(given.state_dict())):
        ours, theirs = ([*u.config["attention"], "of", u.config["patch"]] for u in (unet, given))
        raise UserError(
            f"{where}: its {part} U-Net has attention at sides {_plain(theirs)}, this one {_plain(ours)} "
            f"({missing[0]} is in one alone)"
        )
    by_name = _rows_by_name(unet)
    for name, tensor in given.state_dict().items():
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


def _names(part: ModelName, labels: Labels) -> tuple[str, ...]:
    """What the rows of `_rows_by_name` belong to."""
    return labels.classes if part == "image" else (NULL, *labels.contexts)


def _rows_by_name(unet: torch.nn.Module) -> set[str]:
    """Weights that have a row per class, or a row per context."""
    if isinstance(unet, MaskUNet):
        return {"context.weight"}
    others = {name for name in ("label_pixels.weight",) if name in unet.state_dict()}
    asking = [name for name, module in unet.named_modules() if isinstance(module, MaskedCrossAttention)]
    return {"label.weight", *others, *(f"{name}.query.weight" for name in asking)}


def _remarks(part: ModelName, source: Bundle, ours: Labels) -> str:
    """What is new here; and, for the mask model, which classes its label maps wrote in another way."""
    theirs, what = source.labels, "classes" if part == "image" else "contexts"
    known = set(_names(part, theirs))
    fresh = [name for name in _names(part, ours) if name not in known]
    remarks = f", {what} new here: {', '.join(fresh)}" if fresh else ""
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
