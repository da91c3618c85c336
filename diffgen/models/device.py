"""What device there is, and the way to it without waiting."""

import re
from typing import Any

import torch
from torch import Tensor, nn


def kind() -> str:
    """`cpu`, or the model of this machine's GPU as Ray writes it: `H100`, `GeForce-RTX-4090`."""
    if not torch.cuda.is_available():
        return "cpu"
    name = torch.cuda.get_device_name()
    model = re.match(r"\w+\s+((?:[A-Za-z]+\s+)*[A-Z0-9]*\d[A-Z0-9]*)", name)
    return "-".join((model[1] if model else name).split())


def computes_bf16(precision: str, device: torch.device) -> bool:
    """Whether to train in bf16: `bf16`, or `auto` where the device's own instructions do.

    A CPU without AVX-512 BF16, AMX or Arm's bf16 emulates it, nine times slower than fp32.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        # A GPU that is not here, of a forecast, is taken for one of today.
        return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)
    has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(has.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def device_of(network: Any) -> torch.device:
    """The device that a network's weights are on; the CPU of a function that has none."""
    return next(network.parameters()).device if isinstance(network, nn.Module) else torch.device("cpu")


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`; to a GPU through pinned memory, so that the copy runs beside the GPU's work."""
    if tensor.device.type == device.type or device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
