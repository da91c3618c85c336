"""Attention of the two U-Nets (paper, Appendix E), each in time linear in the number of pixels.

Shapes: B batch, N heads, D channels per head, L labels, h × w a feature map.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F


def nearest(label_map: Tensor, height: int, width: int) -> Tensor:
    """Label map (B, H, W) on a coarser grid (B, h, w) by nearest pixel."""
    if label_map.shape[-2:] == (height, width):
        return label_map
    resized = F.interpolate(label_map[:, None].float(), size=(height, width), mode="nearest-exact")
    return resized[:, 0].long()


class MaskedCrossAttention(nn.Module):
    """The label map asks, the features x answer: mask as query, x as key and value (Appendix E).

    The query is a 1×1 projection of the one-hot label map without spatial normalisation, so all
    pixels of a label ask the same: L pooled vectors, O(L·h·w) instead of O((h·w)²), scattered to
    the pixels of each label. A binary mask is the case of two labels, c and ∅ = 0.
    """

    def __init__(self, channels: int, num_labels: int, heads: int, head_channels: int, groups: int) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * head_channels
        self.norm = nn.GroupNorm(groups, channels)
        self.query = nn.Embedding(num_labels, inner)
        self.key_value = nn.Conv2d(channels, 2 * inner, 1, bias=False)
        self.out = nn.Linear(inner, channels)
        nn.init.zeros_(self.out.weight)  # a residual branch begins as the identity
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, label_map: Tensor) -> Tensor:
        """Features (B, C, h, w) and ids (B, H, W) → features (B, C, h, w)."""
        batch, _, height, width = x.shape
        key, value = rearrange(
            self.key_value(self.norm(x)), "b (two n d) h w -> two b n (h w) d", two=2, n=self.heads
        ).unbind(0)
        query = rearrange(self.query.weight, "l (n d) -> 1 n l d", n=self.heads).expand(batch, -1, -1, -1)
        pooled = F.scaled_dot_product_attention(query, key, value)
        answers = self.out(rearrange(pooled, "b n l d -> b l (n d)"))
        ids = nearest(label_map, height, width).flatten(1)
        scattered = torch.gather(answers, 1, ids[..., None].expand(-1, -1, answers.shape[-1]))
        return x + rearrange(scattered, "b (h w) c -> b c h w", h=height)


class LinearAttention(nn.Module):
    """Self-attention with the softmax taken over keys and queries apart (Shen et al., 2021)."""

    def __init__(self, channels: int, heads: int, head_channels: int, groups: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, head_channels**-0.5
        inner = heads * head_channels
        self.norm = nn.GroupNorm(groups, channels)
        self.query_key_value = nn.Conv2d(channels, 3 * inner, 1, bias=False)
        self.out = nn.Conv2d(inner, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]  # a bias is there

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, h, w) → features (B, C, h, w)."""
        height = x.shape[-2]
        query, key, value = rearrange(
            self.query_key_value(self.norm(x)),
            "b (three n d) h w -> three b n d (h w)",
            three=3,
            n=self.heads,
        ).unbind(0)
        query, key = query.softmax(dim=-2) * self.scale, key.softmax(dim=-1)
        context = torch.einsum("bndi,bnei->bnde", key, value)
        answer = torch.einsum("bnde,bndi->bnei", context, query)
        return x + self.out(rearrange(answer, "b n e (h w) -> b (n e) h w", h=height))
