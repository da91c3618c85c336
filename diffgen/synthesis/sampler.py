"""A sampler: weights and no state, a pure function from a lease's work to its results.

Micro-batch and threads are settings that shape the sample, the same inline and under Ray: results
are equal byte for byte whatever came before and whatever else is in the lease.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from diffgen import config
from diffgen.labels import LabelMap
from diffgen.models import bundle
from diffgen.sampling import masks
from diffgen.sampling.canvas import NonFiniteError, Patch
from diffgen.sampling.decode import decode
from diffgen.sampling.denoise import Conditioning, batch_size, estimate, image_denoiser, mask_denoiser
from diffgen.synthesis.coordinator import Lease
from diffgen.synthesis.painting import Layout, Render, Rendered

PNG_LEVEL = 4  # zlib: twice as fast as its default for 2 % more bytes on tissue


class Sampler:
    """U-Nets and autoencoder of a bundle on one device."""

    def __init__(self, folder: Path, sampling: config.Sampling) -> None:
        torch.set_num_threads(sampling.threads)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.bundle = bundle.load(folder).to(self.device)
        self.sampling = sampling
        self.conditioning: Conditioning = (
            "joint" if self.bundle.facts.conditioning == "joint" else "per_label"
        )

    def work(self, lease: Lease) -> list[Any]:
        """Results of a lease's items, in their order."""
        sampling, patches = self.sampling, [item for item in lease.items if isinstance(item, Patch)]
        if lease.kind == "mask":
            denoiser, base = mask_denoiser(self.bundle.mask_unet), self.bundle.facts.mask_patch
            size = batch_size(sampling.micro_batch, base, patches[0].labels.shape)
            return [*estimate(denoiser, patches, sampling.mask_guidance, "per_label", size)]
        if lease.kind == "image":
            denoiser, base = image_denoiser(self.bundle.image_unet), self.bundle.facts.image_patch
            size = batch_size(sampling.micro_batch, base, patches[0].labels.shape)
            return [*estimate(denoiser, patches, sampling.guidance, self.conditioning, size)]
        return [
            self._layout(item) if isinstance(item, Layout) else self._render(item) for item in lease.items
        ]

    def _layout(self, item: Layout) -> LabelMap:
        """Bits → label map of the image: cleaned at the mask's scale, then enlarged and cut."""
        facts = self.bundle.facts
        label_map = masks.from_bits(item.bits, len(self.bundle.labels))
        least = round(self.sampling.min_region_um2 / facts.mask_pixel_um**2)
        return masks.enlarge(masks.clean(label_map, least), facts.mask_pixel_px, item.height, item.width)

    def _render(self, item: Any) -> Rendered | NonFiniteError:
        assert isinstance(item, Render)
        sampling, factor = self.sampling, self.bundle.facts.factor
        try:
            picture = decode(
                self.bundle.codec.decode, item.latents, factor, sampling.decode_tile, sampling.decode_overlap
            )
        except NonFiniteError as error:
            return error
        return Rendered(png(picture), png(item.label_map), self.bundle.labels.shares(item.label_map))


def png(array: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """RGB picture (H, W, 3) or label map (H, W; 8-bit grey, no palette) → PNG."""
    sink = io.BytesIO()
    Image.fromarray(array).save(sink, "png", compress_level=PNG_LEVEL)
    return sink.getvalue()
