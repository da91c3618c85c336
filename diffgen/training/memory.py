"""Bytes that a U-Net's forward pass keeps for its backward pass, counted on the meta device."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from diffgen.models.unet import ImageUNet, MaskUNet


def activation_bytes(unet: ImageUNet | MaskUNet, patches: int, bf16: bool = False) -> int:
    """Bytes that a forward pass of base patches keeps for the backward pass; `unet` on the meta device.

    With gradient checkpointing on, those that are kept, and those of the ResNet block that has most,
    which is computed again. bf16: by autocast's rules, the copies of the weights that it makes included.
    """
    kept = _saved(unet, patches, bf16)[0]
    if not unet.trunk.checkpointing:
        return kept
    unet.trunk.checkpointing = False
    try:
        _, by_block = _saved(unet, patches, bf16)
    finally:
        unet.trunk.checkpointing = True
    return kept + max(by_block)


def example(unet: ImageUNet | MaskUNet, patches: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """What a U-Net takes, for so many base patches: noise, time steps, and label maps or contexts of ∅."""
    side, channels = unet.config["patch"], unet.config["channels"]
    condition = (patches, side, side) if isinstance(unet, ImageUNet) else (patches,)
    steps = torch.arange(patches, device=device)
    noise = torch.randn(patches, channels, side, side, device=device)
    return noise, steps, torch.zeros(condition, dtype=torch.long, device=device)


def _saved(unet: ImageUNet | MaskUNet, patches: int, bf16: bool) -> tuple[int, list[int]]:
    """Bytes of all tensors saved for the backward pass, and of those from one ResNet block to the next."""
    held: dict[int, Tensor] = {}  # by storage, and alive, so that no other gets its address
    weights = {p.untyped_storage()._cdata for p in unet.parameters()}
    total, starts = 0, []

    def keep(tensor: Tensor) -> Tensor:
        nonlocal total
        storage = tensor.untyped_storage()
        if storage._cdata not in held and storage._cdata not in weights:
            held[storage._cdata] = tensor
            total += storage.nbytes()
        return tensor

    blocks = [module for module in unet.modules() if isinstance(module, ResnetBlock2D)]
    hooks = [block.register_forward_pre_hook(lambda *_: starts.append(total)) for block in blocks]
    inputs = example(unet, patches, torch.device("meta"))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), _autocast_on_meta(bf16):
        kept_alive = unet(*inputs)
    for hook in hooks:
        hook.remove()
    del kept_alive
    return total, np.diff([*starts, total]).tolist()


class _Autocast(TorchFunctionMode):
    """CUDA autocast's rules for what the U-Nets call; the meta device has no autocast of its own."""

    LOWER = (torch.conv2d, F.linear, torch.einsum, torch.matmul, torch.bmm, F.scaled_dot_product_attention)
    UPPER = (F.group_norm, F.layer_norm, F.softmax, torch.softmax, Tensor.softmax)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        to = torch.bfloat16 if func in self.LOWER else torch.float32 if func in self.UPPER else None

        def cast(value: Any) -> Any:
            floating = isinstance(value, Tensor) and value.is_floating_point()
            return value.to(to) if to is not None and floating else value

        return func(*(cast(a) for a in args), **{k: cast(v) for k, v in (kwargs or {}).items()})


def _autocast_on_meta(on: bool) -> Any:
    return _Autocast() if on else nullcontext()
