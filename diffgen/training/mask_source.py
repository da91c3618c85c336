"""What the mask model is trained on: label maps as its codec writes them, under their context or ∅.

A label map is drawn by its number and one of eight flips and turns, and encoded by itself: a sample
does not depend on the others of its batch.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from diffgen.data.stream import PatchTable, dihedral
from diffgen.errors import UserError
from diffgen.models.mask_codec import MaskCodec
from diffgen.training.algorithm import Batch, NoiseLevels, draw_noise

KEPT = 2**27  # bytes of encoded label maps that are kept: 32,768 of latents 4×16×16

NO_LABEL_MAPS = (
    "{} holds no label maps for the mask model: prepare with masks or --labels stain, "
    "or train the image model alone (diffgen train image)"
)


class MaskSource:
    """Label maps at the mask's scale, in random order."""

    def __init__(
        self, patches: PatchTable, codec: MaskCodec, p_conditional: float, levels: NoiseLevels, seed: int
    ) -> None:
        """Raises `UserError` where there are no label maps."""
        self.patches, self.codec, self.p_conditional = patches, codec, p_conditional
        self.levels, self.seed = levels, seed
        if not len(patches):
            raise UserError(NO_LABEL_MAPS.format(patches.folder))
        self.side = int(patches.rows[0]["height"]) // codec.factor
        # Through an autoencoder a label map takes long, and its latents take little.
        many = KEPT // (4 * codec.channels * self.side**2)
        self._kept = lru_cache(many)(self._encoded) if codec.factor > 1 else self._encoded

    def sides(self, step: int, batch: int) -> list[int]:
        """The mask model has one patch side."""
        del step
        return [self.side] * batch

    def batch(self, step: int, samples: Sequence[int]) -> Batch:
        """z_0 (B, C, h, w), contexts + 1 or ∅ (B,), time steps (B,) and noise of these samples of a step."""
        cleans, contexts, steps, noises = [], [], [], []
        for j in samples:
            timestep, rng = self.levels.draw(self.seed, step, j)
            number, turn = int(rng.integers(len(self.patches))), int(rng.integers(8))
            conditional = rng.random() < self.p_conditional
            cleans.append(torch.from_numpy(self._kept(number, turn)))
            contexts.append(self.patches.context(number) + 1 if conditional else 0)
            steps.append(timestep)
            noises.append(draw_noise(tuple(cleans[-1].shape), rng))
        return Batch(torch.stack(cleans), torch.tensor(contexts), torch.tensor(steps), torch.stack(noises))

    def _encoded(self, number: int, turn: int) -> NDArray[np.float32]:
        return self.codec.encode(dihedral(self.patches.label_map(number), turn))
