import math

import pytest
import torch
from einops import rearrange

from diffgen.models.attention import LinearAttention, MaskedCrossAttention, nearest


def plain(layer: MaskedCrossAttention, x: torch.Tensor, label_map: torch.Tensor) -> torch.Tensor:
    """The O((h·w)²) form: every pixel asks with the query of its own label."""
    height, width = x.shape[-2:]
    key, value = rearrange(
        layer.key_value(layer.norm(x)), "b (two n d) h w -> two b n (h w) d", two=2, n=layer.heads
    )
    ids = nearest(label_map, height, width).flatten(1)
    query = rearrange(layer.query(ids), "b p (n d) -> b n p d", n=layer.heads)
    weights = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).softmax(-1)
    answer = layer.out(rearrange(weights @ value, "b n p d -> b p (n d)"))
    return x + rearrange(answer, "b (h w) c -> b c h w", h=height)


@pytest.mark.parametrize("labels", [2, 6])
@pytest.mark.parametrize("size", [(8, 8), (4, 12)])
def test_pooled_form_equals_the_plain_softmax(labels: int, size: tuple[int, int]) -> None:
    torch.manual_seed(1)
    layer = MaskedCrossAttention(16, labels, 4, 8, groups=4).double()
    torch.nn.init.normal_(layer.out.weight)
    x = torch.randn(3, 16, *size, dtype=torch.float64)
    label_map = torch.randint(0, labels, (3, 2 * size[0], 2 * size[1]))
    torch.testing.assert_close(layer(x, label_map), plain(layer, x, label_map), rtol=1e-9, atol=1e-9)


def test_gradients_agree_too() -> None:
    torch.manual_seed(2)
    layer = MaskedCrossAttention(8, 2, 2, 4, groups=4).double()
    torch.nn.init.normal_(layer.out.weight)
    x, label_map = torch.randn(2, 8, 4, 4, dtype=torch.float64), torch.randint(0, 2, (2, 4, 4))
    grads = []
    for form in (layer, lambda a, m: plain(layer, a, m)):
        layer.zero_grad()
        form(x, label_map).square().sum().backward()
        grads.append([parameter.grad.clone() for parameter in layer.parameters()])
    for pooled, full in zip(*grads, strict=True):
        torch.testing.assert_close(pooled, full, rtol=1e-8, atol=1e-8)


def test_the_mask_matters() -> None:
    torch.manual_seed(3)
    layer = MaskedCrossAttention(8, 3, 2, 4, groups=4)
    torch.nn.init.normal_(layer.out.weight)
    x = torch.randn(1, 8, 4, 4)
    label_map = torch.zeros(1, 4, 4, dtype=torch.long)
    changed = label_map.clone()
    changed[0, 0, 0] = 2
    moved = (layer(x, label_map) - layer(x, changed)).abs().amax(1)[0] > 1e-6
    assert moved[0, 0]
    assert moved.sum() == 1


def test_linear_attention_is_the_textbook_form() -> None:
    torch.manual_seed(4)
    layer = LinearAttention(8, 2, 4, groups=4).double()
    torch.nn.init.normal_(layer.out.weight)
    x = torch.randn(2, 8, 4, 6, dtype=torch.float64)
    query, key, value = rearrange(
        layer.query_key_value(layer.norm(x)), "b (three n d) h w -> three b n d (h w)", three=3, n=2
    )
    full = (query.softmax(-2) / 2).transpose(-1, -2) @ key.softmax(-1) @ value.transpose(-1, -2)
    expected = x + layer.out(rearrange(full, "b n (h w) d -> b (n d) h w", h=4))
    torch.testing.assert_close(layer(x), expected)


def test_nearest_takes_block_centres() -> None:
    label_map = torch.arange(16).reshape(1, 4, 4)
    assert nearest(label_map, 2, 2).tolist() == [[[5, 7], [13, 15]]]
    assert nearest(label_map, 4, 4) is label_map
