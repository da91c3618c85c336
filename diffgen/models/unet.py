"""The two U-Nets of the paper (Appendix E, Table 6): one trunk, two ways to be conditioned.

`ImageUNet` fills a label map: label embedding in the ResNet blocks, masked cross-attention.
`MaskUNet` draws a label map: context embedding, linear self-attention.
Both are diffusers models: `save_pretrained` writes config.json and safetensors.
"""

from collections.abc import Callable, Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from diffgen.models.attention import LinearAttention, MaskedCrossAttention


class Trunk(nn.Module):
    """U-Net body: ResNet blocks with time and condition as scale and shift, attention where asked.

    `attention(channels, middle)` makes a layer; `attend(layer, x)` calls it in the forward pass.
    """

    checkpointing: bool = False
    """Keep the inputs of each ResNet block with its attention alone, and compute the rest again in the
    backward pass: the same gradients, less memory, a third more time."""

    def __init__(
        self,
        channels: int,
        patch: int,
        width: int,
        multipliers: Sequence[int],
        blocks: int,
        attention_sides: Sequence[int],
        attention: Callable[[int, bool], nn.Module],
        dropout: float = 0.0,
        given: int = 0,
    ) -> None:
        """`given` channels of the input are conditions: they are read, and not estimated."""
        super().__init__()
        groups, embedding = groups_of(width), 4 * width
        widths = [width * m for m in multipliers]
        self.time = Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.embed = TimestepEmbedding(width, embedding)

        def resnet(inputs: int, outputs: int) -> ResnetBlock2D:
            return ResnetBlock2D(
                in_channels=inputs,
                out_channels=outputs,
                temb_channels=embedding,
                groups=groups,
                dropout=dropout,
                time_embedding_norm="scale_shift",
            )

        def at(level: int) -> nn.Module | None:
            return attention(widths[level], False) if patch >> level in attention_sides else None

        self.first = nn.Conv2d(channels + given, width, 3, padding=1)
        self.down, skips, last = nn.ModuleList(), [width], width
        for level, now in enumerate(widths):
            for _ in range(blocks):
                self.down.append(nn.ModuleList([resnet(last, now), at(level) or nn.Identity()]))
                skips.append(now)
                last = now
            if level < len(widths) - 1:
                self.down.append(nn.ModuleList([Downsample2D(last, use_conv=True, name="op")]))
                skips.append(last)
        self.middle = nn.ModuleList([resnet(last, last), attention(last, True), resnet(last, last)])
        self.up = nn.ModuleList()
        for level, now in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.up.append(nn.ModuleList([resnet(last + skips.pop(), now), at(level) or nn.Identity()]))
                last = now
            if level:
                self.up.append(nn.ModuleList([Upsample2D(last, use_conv=True)]))
        self.norm = nn.GroupNorm(groups, width)
        self.last = nn.Conv2d(width, channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]  # a bias is there

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        condition: Tensor,
        attend: Callable[[nn.Module, Tensor], Tensor],
    ) -> Tensor:
        """Noisy patches (B, C, h, w), steps (B,), condition embedding (B, 4·width) → (B, C, h, w)."""
        embedding = self.embed(self.time(timestep).to(sample.dtype)) + condition
        x = self.first(sample)
        skips = [x]
        for stage in self.down:
            x = self._stage(list(stage.children()), embedding, attend, x)
            skips.append(x)
        resnet, attention, resnet2 = self.middle
        x = self._stage([resnet, attention], embedding, attend, x)
        x = self._stage([resnet2, nn.Identity()], embedding, attend, x)
        for stage in self.up:
            layers = list(stage.children())
            skip = [skips.pop()] if len(layers) > 1 else []
            x = self._stage(layers, embedding, attend, x, *skip)
        out: Tensor = self.last(F.silu(self.norm(x)))
        return out

    def _stage(
        self,
        layers: Sequence[nn.Module],
        embedding: Tensor,
        attend: Callable[[nn.Module, Tensor], Tensor],
        *maps: Tensor,
    ) -> Tensor:
        """A ResNet block on the feature maps side by side, then its attention; or down- or upsampling."""
        if len(layers) == 1:
            out: Tensor = layers[0](*maps)
            return out
        resnet, attention = layers

        def run(embedding: Tensor, *maps: Tensor) -> Tensor:
            x: Tensor = resnet(torch.cat(maps, dim=1) if len(maps) > 1 else maps[0], embedding)
            return x if isinstance(attention, nn.Identity) else attend(attention, x)

        if not (self.checkpointing and torch.is_grad_enabled()):
            return run(embedding, *maps)
        again: Tensor = checkpoint(run, embedding, *maps, use_reentrant=False)
        return again


def groups_of(width: int) -> int:
    """Groups of a normalisation: 32 as usual, fewer in a narrow network."""
    return 32 if width % 32 == 0 and width >= 128 else max(1, width // 4)


class ImageUNet(ModelMixin, ConfigMixin):
    """ε_θ(z_t, t, c) of the image model, for a whole label map at once.

    Each pixel of the label map asks with its own label (`joint` conditioning); a map that holds
    one label c and elsewhere 0 is the paper's conditioning on c, a map of zeros is ∅. What holds for a
    whole image is embedded beside the time step: its context (1 … `num_contexts`; 0 is ∅) and its
    `appearance` of so many numbers (`diffgen.appearance`; a row of NaN is ∅).
    """

    @register_to_config
    def __init__(
        self,
        channels: int = 12,
        num_labels: int = 5,
        patch: int = 32,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2, 4),
        blocks: int = 2,
        attention: Sequence[int] = (16, 8),
        heads: int = 4,
        head_channels: int = 32,
        num_contexts: int = 0,
        appearance: int = 0,
        label_input: bool = False,
        learned_weight: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()

        def layer(at: int, middle: bool) -> nn.Module:  # noqa: ARG001 (the same layer everywhere)
            return MaskedCrossAttention(at, num_labels, heads, head_channels, groups_of(width))

        given = width // 4 if label_input else 0
        self.trunk = Trunk(
            channels, patch, width, multipliers, blocks, attention, layer, dropout=dropout, given=given
        )
        self.label = nn.Embedding(num_labels, 4 * width)
        self.label_pixels = nn.Embedding(num_labels, given) if label_input else None
        self.embed_context = nn.Embedding(num_contexts + 1, 4 * width) if num_contexts else None
        # One number more says that there is an appearance at all.
        self.embed_appearance = TimestepEmbedding(appearance + 1, 4 * width) if appearance else None
        self.log_variance = nn.Linear(width, 1) if learned_weight else None
        if self.log_variance is not None:
            nn.init.zeros_(self.log_variance.weight)
            nn.init.zeros_(self.log_variance.bias)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        label_map: Tensor,
        context: Tensor | None = None,
        appearance: Tensor | None = None,
        with_log_loss: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Noisy latents (B, C, h, w), steps (B,), label map at the latent grid (B, h, w), contexts (B,),
        appearances (B, A) → (B, C, h, w); and, if asked, u(t) (B,), the loss that is expected at a noise
        level, as a logarithm (Karras et al., 2024, eq. 21)."""
        ids = label_map.long()
        if self.label_pixels is not None:
            given = self.label_pixels(ids).permute(0, 3, 1, 2).to(sample.dtype)
            sample = torch.cat([sample, given], dim=1)
        condition = self._embed(ids)
        if self.embed_context is not None:
            null = torch.zeros_like(timestep)
            condition = condition + self.embed_context((null if context is None else context).long())
        if self.embed_appearance is not None:
            condition = condition + self.embed_appearance(self._numbers(sample, appearance))
        estimate: Tensor = self.trunk(sample, timestep, condition, lambda layer, x: layer(x, ids))
        if not with_log_loss:
            return estimate
        assert self.log_variance is not None, "a network with a learned weight"
        expected: Tensor = self.log_variance(self.trunk.time(timestep).to(self.log_variance.weight))[:, 0]
        return estimate, expected

    def _numbers(self, sample: Tensor, appearance: Tensor | None) -> Tensor:
        """Appearances (B, A), zeros for ∅, and a last column that says which are given."""
        if appearance is None:
            return sample.new_zeros(len(sample), self.config.appearance + 1)
        there = ~appearance.isnan().any(dim=1, keepdim=True)
        return torch.cat([torch.where(there, appearance, 0.0), there.to(appearance)], dim=1).to(sample.dtype)

    def _embed(self, ids: Tensor) -> Tensor:
        """Mean embedding (B, E) of the labels present in each map (B, h, w); ∅ where there is none."""
        count = self.label.num_embeddings
        present = F.one_hot(ids.flatten(1), count).amax(dim=1).to(self.label.weight.dtype)
        present[:, 0] = (present[:, 1:].sum(dim=1) == 0).to(present)
        return present @ self.label.weight / present.sum(dim=1, keepdim=True)


class MaskUNet(ModelMixin, ConfigMixin):
    """ε_θ(z_t, t, context) of the mask model on label bits, at the mask's own scale.

    Contexts count from 1; 0 is the learned null ∅.
    """

    @register_to_config
    def __init__(
        self,
        channels: int = 3,
        num_contexts: int = 1,
        patch: int = 32,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2, 4),
        blocks: int = 2,
        attention: Sequence[int] = (16, 8),
        heads: int = 4,
        head_channels: int = 32,
    ) -> None:
        super().__init__()
        groups = groups_of(width)

        def layer(at: int, middle: bool) -> nn.Module:
            if middle:  # few pixels: full attention costs nothing there
                return Attention(
                    at, heads=heads, dim_head=head_channels, norm_num_groups=groups, residual_connection=True
                )
            return LinearAttention(at, heads, head_channels, groups)

        self.trunk = Trunk(channels, patch, width, multipliers, blocks, attention, layer)
        self.context = nn.Embedding(num_contexts + 1, 4 * width)

    def forward(self, sample: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        """Noisy bits (B, C, h, w), steps (B,), contexts (B,) → (B, C, h, w).

        Contexts may come as a label map (B, h, w) that is constant: a mask canvas has none but its context.
        """
        context = context if context.ndim == 1 else context[:, 0, 0]
        return self.trunk(sample, timestep, self.context(context.long()), lambda layer, x: layer(x))
