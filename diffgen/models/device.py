"""What device there is, and the way to it without waiting."""

import re

import torch
from torch import Tensor


def kind() -> str:
    """`cpu`, or the model of this machine's GPU as Ray writes it: `H100`, `GeForce-RTX-4090`."""
    if not torch.cuda.is_available():
        return "cpu"
    name = torch.cuda.get_device_name()
    model = re.match(r"\w+\s+((?:[A-Za-z]+\s+)*[A-Z0-9]*\d[A-Z0-9]*)", name)
    return "-".join((model[1] if model else name).split())


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`; to a GPU through pinned memory, so that the copy runs beside the GPU's work."""
    if tensor.device.type == device.type or device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
