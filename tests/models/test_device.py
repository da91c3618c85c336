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


@pytest.mark.parametrize(
    ("precision", "instructions", "bf16"),
    [
        ("auto", {"avx2": True, "avx512_bf16": False}, False),
        ("auto", {"avx512_bf16": True}, True),
        ("auto", {"bf16": True}, True),
        ("bf16", {}, True),
        ("fp32", {"amx_bf16": True}, False),
    ],
)
def test_a_cpu_computes_in_bf16_where_it_has_instructions_for_it(
    precision: str, instructions: dict[str, bool], bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    assert device.computes_bf16(precision, torch.device("cpu")) is bf16
