"""The time-state map L of Algorithm 2 as it was through a run, and a film of it (paper, Fig. 2c).

Covers are functions of the seed, so the map is drawn again from them: within a step patches are shown
in their order, though they may have arrived in any other.
"""

import io

import numpy as np
from PIL import Image

from diffgen.sampling.covers import CoverSchedule

FRAMES_PER_STEP = 4
SIDE = 256  # of the film, in pixels, at least


def record(covers: CoverSchedule) -> tuple[bytes, bytes]:
    """An NPZ and a GIF.

    NPZ: `state` (steps + 1, H, W) int16, L before each step and at the end; `last` (steps, H, W) int32,
    number of the patch with which a pixel of the step reached t; `log_snr` (steps,).
    """
    steps, last, frames = len(covers.log_snr), [], []
    for step, cover in enumerate(covers):
        reached = np.zeros((covers.height, covers.width), dtype=np.int32)
        for number in range(len(cover)):
            reached[cover.box(number)][cover.owned(number)] = number
        last.append(reached)
        for part in range(FRAMES_PER_STEP):
            written = reached < len(cover) * part / FRAMES_PER_STEP
            frames.append(_frame(np.where(written, steps - step - 1, steps - step) / steps))
    frames.append(_frame(np.zeros((covers.height, covers.width))))
    state = np.arange(steps, -1, -1, dtype=np.int16)[:, None, None] * np.ones(reached.shape, np.int16)
    npz, gif = io.BytesIO(), io.BytesIO()
    np.savez_compressed(npz, state=state, last=np.stack(last), log_snr=np.array(covers.log_snr))
    frames[0].save(gif, "gif", save_all=True, append_images=frames[1:], duration=120, loop=0)
    return npz.getvalue(), gif.getvalue()


def _frame(level: np.ndarray) -> Image.Image:
    """L / T as grey: noise is dark, finished is light."""
    scale = max(1, -(-SIDE // max(level.shape)))
    grey = np.kron(255 - np.rint(level * 225).astype(np.uint8), np.ones((scale, scale), np.uint8))
    return Image.fromarray(grey)
