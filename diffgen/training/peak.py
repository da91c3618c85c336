"""Peak arithmetic of GPUs, to say what share of it a training reaches."""

import re

TERA = 1e12
PEAKS: tuple[tuple[str, float | None, float | None, float], ...] = (
    # Name as CUDA gives it, then dense TFLOP/s in bf16, TF32 and fp32: NVIDIA's datasheets, whose figures
    # "with sparsity" are halved; GeForce: GA102 and Ada whitepapers, tensor cores that sum in fp32.
    (r"H100 NVL", 835, 418, 60),
    (r"H100 PCIe", 756, 378, 51),
    (r"H100", 989, 495, 67),
    (r"H200 NVL", 835, 418, 60),
    (r"H200", 989, 495, 67),
    (r"A100", 312, 156, 19.5),
    (r"L40S", 362, 183, 91.6),
    (r"L4", 121, 60, 30.3),
    (r"A10", 125, 62.5, 31.2),
    (r"RTX 3090", 71, 35.6, 35.6),
    (r"RTX 4090", 165, 82.6, 82.6),
    (r"V100-PCIE", None, None, 14),
    (r"V100", None, None, 15.7),
    (r"T4", None, None, 8.1),
)
OTHER = re.compile(r"\bMIG\b|\bTi\b|\bLaptop\b|\b4090 D\b|\bMax-Q\b")
"""Part of a card, or another card of nearly the same name."""


def peak(device_name: str, precision: str) -> float | None:
    """Dense peak in FLOP/s of a device by its CUDA name; None where it is not known.

    `precision` as in `training.precision`: `bf16`, or `fp32`, which torch takes to mean TF32 in
    convolutions (nearly all of a U-Net's FLOPs) where the device has it.
    """
    if OTHER.search(device_name):
        return None
    for name, bf16, tf32, fp32 in PEAKS:
        if re.search(rf"(?<![A-Za-z0-9]){name}(?![A-Za-z0-9])", device_name):
            chosen = bf16 if precision == "bf16" else tf32 or fp32
            return None if chosen is None else chosen * TERA
    return None
