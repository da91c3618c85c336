import pytest
import torch

from diffgen.models import device


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("NVIDIA GeForce RTX 4090", "GeForce-RTX-4090"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX-PRO-6000"),
        ("Something", "Something"),
    ],
)
def test_the_kind_of_a_gpu_is_its_model(name: str, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ray's resource `accelerator_type:…` has it: a folder may be filled with Ray and without."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    assert device.kind() == model
