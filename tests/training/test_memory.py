from typing import Any

import pytest
import torch
from torch import Tensor

from diffgen.models.unet import ImageUNet, MaskUNet
from diffgen.training import memory
from diffgen.training.memory import activation_bytes, example

SHAPE = {"patch": 16, "width": 32, "multipliers": (1, 2), "blocks": 1, "attention": (16, 8), "heads": 2}


def unet_on(device: str, kind: str) -> Any:
    with torch.device(device):
        if kind == "image":
            return ImageUNet(channels=4, num_labels=5, **SHAPE)
        return MaskUNet(channels=4, num_contexts=2, **SHAPE)


def really_saved(unet: Any, patches: int, bf16: bool) -> int:
    """Bytes that the graph of a forward pass on the CPU holds, beside the weights."""
    held: dict[int, Tensor] = {}
    weights = {p.untyped_storage()._cdata for p in unet.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        out = unet(*example(unet, patches, torch.device("cpu")))
    assert out.grad_fn is not None
    return sum(t.untyped_storage().nbytes() for key, t in held.items() if key not in weights)


@pytest.mark.parametrize("kind", ["image", "mask"])
def test_the_meta_device_saves_what_a_real_one_does(kind: str) -> None:
    """The CPU's own kernel of full attention keeps a little less."""
    real = really_saved(unet_on("cpu", kind), 3, bf16=False)
    assert activation_bytes(unet_on("meta", kind), 3) == pytest.approx(real, rel=0.02)


@pytest.mark.parametrize("kind", ["image", "mask"])
def test_autocast_is_followed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU's autocast leaves normalisation in bf16; but for that its rules are CUDA's."""
    counted = activation_bytes(unet_on("meta", kind), 3, bf16=True)
    monkeypatch.setattr(memory._Autocast, "UPPER", ())
    lower = activation_bytes(unet_on("meta", kind), 3, bf16=True)
    assert lower == pytest.approx(really_saved(unet_on("cpu", kind), 3, bf16=True), rel=0.03)
    assert counted > 1.2 * lower


@pytest.mark.parametrize("bf16", [False, True])
def test_each_patch_keeps_as_much_as_another(bf16: bool) -> None:
    """And autocast, once, its copies of the weights."""
    unet = unet_on("meta", "image")
    two, three, four = (activation_bytes(unet, n, bf16) for n in (2, 3, 4))
    assert four - three == three - two
    weights = sum(p.numel() for p in unet.parameters())
    assert two - 2 * (three - two) == pytest.approx(2 * weights if bf16 else 0, rel=0.05)


@pytest.mark.parametrize("kind", ["image", "mask"])
def test_checkpointing_keeps_less(kind: str) -> None:
    unet = unet_on("meta", kind)
    all_of_it = activation_bytes(unet, 4)
    unet.trunk.checkpointing = True
    assert activation_bytes(unet, 4) < 0.7 * all_of_it
    assert unet.trunk.checkpointing
