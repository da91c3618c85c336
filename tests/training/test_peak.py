import pytest

from diffgen.training.peak import PEAKS, peak


@pytest.mark.parametrize(
    ("name", "bf16", "fp32"),
    [
        ("NVIDIA H100 80GB HBM3", 989, 495),
        ("NVIDIA H100 PCIe", 756, 378),
        ("NVIDIA H100 NVL", 835, 418),
        ("NVIDIA H200", 989, 495),
        ("NVIDIA A100-SXM4-80GB", 312, 156),
        ("NVIDIA A100-PCIE-40GB", 312, 156),
        ("NVIDIA L40S", 362, 183),
        ("NVIDIA A10", 125, 62.5),
        ("NVIDIA L4", 121, 60),
        ("NVIDIA GeForce RTX 3090", 71, 35.6),
        ("NVIDIA GeForce RTX 4090", 165, 82.6),
        ("Tesla V100-SXM2-32GB", None, 15.7),
        ("Tesla V100-PCIE-16GB", None, 14),
        ("Tesla T4", None, 8.1),
    ],
)
def test_names_as_cuda_gives_them(name: str, bf16: float | None, fp32: float) -> None:
    assert peak(name, "bf16") == (None if bf16 is None else bf16 * 1e12)
    assert peak(name, "fp32") == fp32 * 1e12


@pytest.mark.parametrize(
    "name",
    [
        "cpu",
        "NVIDIA GH200 480GB",
        "NVIDIA A10G",
        "NVIDIA L40",
        "NVIDIA T400",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA H100 80GB HBM3 MIG 3g.40gb",
        "AMD Instinct MI300X",
    ],
)
def test_of_others_nothing_is_said(name: str) -> None:
    assert peak(name, "bf16") is None
    assert peak(name, "fp32") is None


def test_figures_are_dense() -> None:
    """Tensor cores take bf16 at twice the rate of TF32; a figure with sparsity would be four times."""
    for _, bf16, tf32, fp32 in PEAKS:
        if bf16 and tf32:
            assert 1.9 < bf16 / tf32 < 2.1
            assert fp32 <= tf32
