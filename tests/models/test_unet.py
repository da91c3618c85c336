from pathlib import Path

import pytest
import torch

from diffgen.models.unet import ImageUNet, MaskUNet

SHAPE = {"patch": 8, "width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (8, 4), "heads": 2}


def awake(model: torch.nn.Module) -> torch.nn.Module:
    """Fresh U-Nets give zeros: wake all weights."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture(scope="module")
def image_unet() -> ImageUNet:
    return awake(ImageUNet(channels=3, num_labels=4, **SHAPE))  # type: ignore[return-value]


def test_label_map_steers_and_null_is_zeros(image_unet: ImageUNet) -> None:
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([500])
    null = image_unet(x, t, torch.zeros(1, 8, 8, dtype=torch.uint8))
    one = image_unet(x, t, torch.ones(1, 8, 8, dtype=torch.uint8))
    assert null.shape == x.shape
    assert (null - one).abs().max() > 1e-4


def test_embedding_is_that_of_the_one_label(image_unet: ImageUNet) -> None:
    half = torch.zeros(1, 8, 8, dtype=torch.long)
    half[:, :4] = 3
    torch.testing.assert_close(image_unet._embed(half)[0], image_unet.label.weight[3])
    torch.testing.assert_close(image_unet._embed(0 * half)[0], image_unet.label.weight[0])
    half[:, 4:] = 1
    torch.testing.assert_close(image_unet._embed(half)[0], image_unet.label.weight[[1, 3]].mean(0))


def test_patches_twice_as_wide_pass(image_unet: ImageUNet) -> None:
    maps = torch.zeros(1, 16, 16, dtype=torch.long)
    assert image_unet(torch.randn(1, 3, 16, 16), torch.tensor([1]), maps).shape == (1, 3, 16, 16)


def test_context_steers_the_mask_model() -> None:
    unet = awake(MaskUNet(channels=2, num_contexts=2, **SHAPE))
    x, t = torch.randn(1, 2, 8, 8).expand(3, -1, -1, -1), torch.tensor([500] * 3)
    null, first, second = unet(x, t, torch.tensor([0, 1, 2]))
    assert (null - first).abs().max() > 1e-4
    assert (first - second).abs().max() > 1e-4


@pytest.mark.parametrize("kind", ["image", "mask"])
def test_checkpointing_gives_the_same_gradients(kind: str) -> None:
    if kind == "image":
        unet, condition = ImageUNet(channels=3, num_labels=4, **SHAPE), torch.randint(0, 4, (2, 8, 8))
    else:
        unet, condition = MaskUNet(channels=3, num_contexts=2, **SHAPE), torch.tensor([0, 2])  # type: ignore[assignment]
    awake(unet).train()
    names, (x, t) = sorted(unet.state_dict()), (torch.randn(2, 3, 8, 8), torch.tensor([10, 700]))
    gradients, saved = [], []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved[-1] += tensor.numel()
        return tensor

    for on in (False, True):
        unet.trunk.checkpointing = on
        unet.zero_grad()
        saved.append(0)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = unet(x, t, condition)
        out.square().mean().backward()
        gradients.append([parameter.grad for parameter in unet.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert all(gradient.abs().max() > 0 for gradient in gradients[0])
    assert saved[1] < 0.6 * saved[0]
    assert sorted(unet.state_dict()) == names
    with torch.no_grad():
        assert torch.equal(unet(x, t, condition), out)


def test_diffusers_layout_round_trip(image_unet: ImageUNet, tmp_path: Path) -> None:
    image_unet.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    again = ImageUNet.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    for name, tensor in image_unet.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_a_row_does_not_depend_on_its_companions(image_unet: ImageUNet) -> None:
    """What equal bytes rest on: same batch size, other companions, other place (promise 2)."""
    torch.manual_seed(5)
    x, t = torch.randn(4, 3, 8, 8), torch.tensor([10, 200, 500, 900])
    maps = torch.randint(0, 4, (4, 8, 8))
    other = torch.randn(4, 3, 8, 8)
    other[3], t2, maps2 = x[1], torch.tensor([1, 2, 3, 200]), torch.randint(0, 4, (4, 8, 8))
    maps2[3] = maps[1]
    with torch.inference_mode():
        assert torch.equal(image_unet(x, t, maps)[1], image_unet(other, t2, maps2)[3])


def conditioned(**more: object) -> ImageUNet:
    torch.manual_seed(0)
    shape = {"patch": 8, "width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "heads": 2}
    made = ImageUNet(channels=2, num_labels=4, num_contexts=3, appearance=5, **shape, **more)
    for parameter in made.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return made.eval()


@torch.no_grad()
def test_context_and_appearance_change_the_estimate_and_null_is_null() -> None:
    unet, z, t, ids = conditioned(), torch.randn(2, 2, 8, 8), torch.tensor([5, 5]), torch.ones(2, 8, 8)
    null = unet(z, t, ids)
    nothing = torch.zeros(2, dtype=torch.long), torch.full((2, 5), torch.nan)
    assert torch.equal(unet(z, t, ids, *nothing), null)
    assert not torch.allclose(unet(z, t, ids, torch.tensor([2, 2])), null)
    one = torch.stack([torch.ones(5), torch.full((5,), torch.nan)])
    looked = unet(z, t, ids, None, one)
    assert not torch.allclose(looked[0], null[0])
    assert torch.allclose(looked[1], null[1], atol=1e-6)
    # An appearance of zeros is the data's mean, not ∅.
    assert not torch.allclose(unet(z, t, ids, None, torch.zeros(2, 5)), null)


@torch.no_grad()
def test_the_label_map_is_read_at_the_full_grid() -> None:
    unet = conditioned(label_input=True)
    z, t, ids = torch.randn(1, 2, 8, 8), torch.tensor([5]), torch.randint(1, 4, (1, 8, 8))
    moved = ids.clone()
    moved[0, 3, 3] = ids[0, 3, 3] % 3 + 1
    change = (unet(z, t, ids) - unet(z, t, moved)).abs().sum(dim=(0, 1))
    near = torch.zeros(8, 8, dtype=torch.bool)
    near[2:5, 2:5] = True
    assert float(change[near].mean()) > 1.5 * float(change[~near].mean())


def test_expected_loss_begins_at_one_and_learns() -> None:
    unet = conditioned(learned_weight=True)
    torch.nn.init.zeros_(unet.log_variance.weight)
    torch.nn.init.zeros_(unet.log_variance.bias)
    z, t, ids = torch.randn(2, 2, 8, 8), torch.tensor([5, 900]), torch.ones(2, 8, 8)
    estimate, expected = unet(z, t, ids, with_log_loss=True)
    assert torch.equal(expected, torch.zeros(2))
    assert torch.allclose(estimate, unet(z, t, ids))
