"""Algorithm 2 of the paper: the one loop behind every image, on a cluster or in one process.

`fill` says which patches per step needs and when the canvas takes it; who estimates them, where and in
which order changes nothing. `sample` drives it here; `synthesis.image_job` drives it by leases.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from diffgen.sampling.canvas import Canvas, Latents
from diffgen.sampling.denoise import Conditioning, Denoiser, batch_size, estimate, forwards_of
from diffgen.sampling.guidance import Guidance


def fill(canvas: Canvas, guidance: Guidance, conditioning: Conditioning) -> Iterator[dict[int, int]]:
    """y_T → y_0: for every step the patches of its cover, each with the forwards that its estimate takes.

    Before the generator is resumed, the guided estimate (eq. 2; line 12) of every one of these patches
    (`Canvas.patch_of`) has been written to the canvas (`Canvas.write`; lines 13–16), in any order. Raises
    `NonFiniteError` as `Canvas.advance` does.
    """
    while not canvas.finished:  # line 1: for t = T, …, 1
        cover, here = canvas.cover, guidance.at(canvas.log_snr)  # lines 2–9: patches that touch every pixel
        yield forwards_of(cover, canvas.label_map, here, conditioning)
        canvas.advance()  # y_t → y_(t−1), eqs. (3) and (5), once the time-state map is uniform


def sample(
    canvases: Sequence[Canvas],
    denoiser: Denoiser,
    guidance: Guidance,
    conditioning: Conditioning,
    micro_batch: int,
    worse: Denoiser | None = None,
) -> list[Latents]:
    """Canvases of as many steps each, filled side by side in this process: y_0 (C, H, W) of each."""
    for turns in zip(*(fill(canvas, guidance, conditioning) for canvas in canvases), strict=True):
        by_shape = defaultdict[tuple[int, int], list[tuple[Canvas, int]]](list)
        for canvas, patches in zip(canvases, turns, strict=True):
            for patch in patches:
                by_shape[canvas.cover.shape(patch)].append((canvas, patch))
        for shape, alike in by_shape.items():
            batch = batch_size(micro_batch, canvases[0].covers.base, shape)
            asked = [canvas.patch_of(patch) for canvas, patch in alike]
            estimates = estimate(denoiser, asked, guidance, conditioning, batch, worse)
            for (canvas, patch), found in zip(alike, estimates, strict=True):
                canvas.write(patch, found)
    return [canvas.latents for canvas in canvases]
