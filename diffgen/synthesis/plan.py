"""The plan of a synthesis: everything that shapes the samples, checked before any work starts.

A plan is plain data: it goes to the coordinator whole, and its `run` into every sample's provenance.
Image k is a function of the plan and k alone (promises 2 and 3).
"""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from diffgen import __version__, config, label_maps
from diffgen.appearance import Appearance, Vector
from diffgen.errors import UserError
from diffgen.labels import LabelMap, Labels
from diffgen.models import bundle
from diffgen.sampling.canvas import GlobalCondition
from diffgen.sampling.covers import Area
from diffgen.sampling.decode import Tiling, tiling
from diffgen.sampling.seeds import Purpose, generator, spread
from diffgen.sampling.solvers import Solver
from diffgen.synthesis.given import Size, check_region, check_size, read_masks, read_references
from diffgen.synthesis.model_setup import ModelSetup, guidance_of, model_setup


@dataclass(frozen=True)
class Plan:
    """What shapes the samples."""

    facts: bundle.GeneratorConfig
    labels: Labels
    schedule: dict[str, Any]
    sampling: config.Sampling
    seed: int
    sizes: tuple[Size, ...]
    """Of the images, by turns: one for all, or those of the given label maps."""
    tile: int | None
    """Side of the tiles that images are written as, in pixels; none: whole."""
    context: int | None
    """Of all images; drawn by its share in the data where there is none."""
    masks: tuple[tuple[str, bytes], ...]
    """Given label maps, name and PNG, taken by turns; none: they are sampled."""
    run: dict[str, Any]
    """All of this in names and numbers: a sample's provenance, and what a folder of shards belongs to."""
    appearance: Appearance | None = None
    """What appearances are drawn from, if the image model is conditioned on them."""
    references: tuple[tuple[str, Vector], ...] = ()
    """Given appearances, name and standardised vector, taken by turns; none: they are drawn."""
    region: Area | None = None
    """Of each image the part that is made, in pixels; none: all of it."""
    made_on: dict[str, str] = field(default_factory=dict)
    """What the last bits of a sample depend on beside `run`."""

    @property
    def steps(self) -> int:
        """Of the image model's canvas."""
        return self.sampling.steps_for(len(self.facts.patch_by_log_snr))

    @property
    def tiling(self) -> Tiling:
        """How canvases of images are decoded."""
        return tiling(self.sampling.decode_tile, self.sampling.decode_overlap, self.facts.reach)

    def size_of(self, index: int) -> Size:
        return self.sizes[index % len(self.sizes)]

    def made_size(self, index: int) -> Size:
        """Height and width in pixels of what is made of an image: all, or its region."""
        if self.region is None:
            return self.size_of(index)
        y0, x0, y1, x1 = self.region
        return y1 - y0, x1 - x0

    def num_tiles(self, index: int) -> int:
        """Samples that an image is written as."""
        height, width = self.size_of(index)
        return 1 if self.tile is None else (height // self.tile) * (width // self.tile)

    @cached_property
    def _firsts(self) -> list[int]:
        """First sample of each size, and at the end the number of samples of all: one turn."""
        return [0, *accumulate(self.num_tiles(k) for k in range(len(self.sizes)))]

    def first_sample(self, index: int) -> int:
        """Index of an image's first sample; of image n: how many samples n images are."""
        turns, rest = divmod(index, len(self.sizes))
        return turns * self._firsts[-1] + self._firsts[rest]

    def where(self, sample: int) -> tuple[int, int]:
        """Image of a sample, and the sample's number in it."""
        turns, rest = divmod(sample, self._firsts[-1])
        k = bisect_right(self._firsts, rest) - 1
        return turns * len(self.sizes) + k, rest - self._firsts[k]

    def context_of(self, index: int) -> int | None:
        """Context of an image; of one whose label map is given the one asked for, or none.

        The images of any run, however few, share the contexts out as the data does, to within one or two.
        """
        if self.masks or self.context is not None:
            return self.context
        shares = np.cumsum(self.labels.context_shares)
        return int(
            np.searchsorted(shares / shares[-1], spread(self.seed, index, Purpose.CONTEXT), side="right")
        )

    def appearance_of(self, index: int) -> tuple[str | None, Vector] | None:
        """The name of the reference and the standardised appearance (A,) of an image, if it has one."""
        if self.appearance is None:
            return None
        if self.references:
            return self.references[index % len(self.references)]
        context = self.context_of(index)
        rng = generator(self.seed, index, Purpose.APPEARANCE)
        return None, self.appearance.draw(rng, 0 if context is None else context + 1)

    def whole(self, index: int) -> GlobalCondition | None:
        """What the image model knows of image `index` beside its label map."""
        appearance, context = self.appearance_of(index), self.context_of(index)
        if appearance is None and not self.facts.image_contexts:
            return None
        number = 0 if context is None or not self.facts.image_contexts else context + 1
        return GlobalCondition(number, None if appearance is None else appearance[1])

    def context_map(self, index: int, shape: Size | None = None) -> LabelMap:
        """The label map of the mask canvas (H, W), or a window of it of this shape.

        Its context's id + 1 everywhere; 0 is the null context.
        """
        context = self.context_of(index)
        assert context is not None
        return np.full(shape or self.mask_shape(index), context + 1, dtype=np.uint8)

    def mask_shape(self, index: int) -> tuple[int, int]:
        """(H, W) of the mask canvas: enough of its own pixels for the image, one mask patch at least."""
        facts, (height, width) = self.facts, self.size_of(index)
        pixel = facts.mask_pixel_px * facts.mask_factor
        rows, columns = (max(facts.mask_patch, -(-side // pixel)) for side in (height, width))
        return rows, columns

    @property
    def min_region(self) -> int:
        """Mask pixels that a region of one class has at least; smaller ones are cleaned away."""
        return round(self.sampling.min_region_um2 / self.facts.mask_pixel_um**2)

    def model(self, name: str) -> ModelSetup:
        """How the `mask` or the `image` model is sampled from."""
        return model_setup(name, self.facts, self.labels, self.schedule, self.sampling, self.seed)

    def given(self, index: int) -> tuple[str, LabelMap] | None:
        """Name and label map (H, W) given for an image, or `None` if it is to be sampled."""
        if not self.masks:
            return None
        name, data = self.masks[index % len(self.masks)]
        return name, label_maps.read(data, name)


def make_plan(
    packed: dict[str, bytes],
    folder: Path,
    settings: config.Settings,
    masks: Path | None,
    references: Sequence[Path] = (),
    device: str = "cpu",
    console: Console | None = None,
) -> Plan:
    """The plan for a bundle (its files, and the folder they are from); `UserError` says what cannot work.

    `device`: what samplers work on, `cpu` or the model of a GPU. `console` shows a bar over label maps.
    """
    index = bundle.read_index(folder)
    base = bundle.load(folder, weights=False)
    if "image_unet" not in index:
        raise UserError(f"{folder} has no image model: diffgen train image")
    if masks is None and "mask_unet" not in index:
        raise UserError(f"{folder} has no mask model: diffgen train mask, or give label maps with --masks")
    synthesis, sampling, facts = settings.synthesis, settings.on(device != "cpu").sampling, base.facts
    if guidance_of(sampling, base.schedule).by_network and "image_unet_guide" not in index:
        raise UserError(f"sampling.guidance.kind auto: {folder} has no worse network (image_unet_guide)")
    num_steps = sampling.steps_for(len(facts.patch_by_log_snr))
    for steps in (num_steps, sampling.mask_steps):
        Solver(sampling.solver, base.schedule, steps, sampling.eta, sampling.spacing)  # says what cannot be
    if masks and synthesis.context is not None and not facts.image_contexts:
        raise UserError("--masks gives the label maps; a context would change nothing")
    looks = read_references(references, base.appearance, folder)
    given, shapes = read_masks(masks, synthesis, facts, base.labels, console) if masks else ((), ())
    size = config.parse_size(synthesis.size)
    if not given:
        check_size(size, facts, f"--size {synthesis.size}")
    sizes = shapes or (size,)
    tile = synthesis.tile if synthesis.emit == "tiles" else None
    region = check_region(synthesis.region, sizes, facts.factor, sampling.cover, tile)
    if tile is not None:
        for one in dict.fromkeys(sizes):
            if tile % facts.factor or one[0] % tile or one[1] % tile:
                raise UserError(
                    f"--tile {tile}: must divide the sides of all images ({one[1]}x{one[0]}) "
                    f"and be a multiple of {facts.factor}"
                )
    context = None if synthesis.context is None else base.labels.context_id(synthesis.context)
    run = {
        "version": __version__,
        "bundle": bundle.digest(packed),
        "seed": synthesis.seed,
        "size": None if given else {"height": size[0], "width": size[1]},
        "masks": hashlib.sha256(b"".join(data for _, data in given)).hexdigest() if given else None,
        "context": synthesis.context,
        "appearance": [[name, *map(float, vector)] for name, vector in looks] or None,
        "tile": tile,
        "mpp": facts.mpp,
        "patch_px": facts.image_patch * facts.factor,
        "conditioning": facts.conditioning,
        "sampling": sampling.model_dump(mode="json") | {"threads": sampling.threads, "steps": num_steps},
    }
    if region is not None:
        y0, x0, y1, x1 = region
        run["region"] = {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0}
    made_on = {
        "device": device, "precision": sampling.precision, "torch": torch.__version__.partition("+")[0],
    }  # fmt: skip
    plan = Plan(
        facts, base.labels, base.schedule, sampling, synthesis.seed, sizes, tile, context, given,
        run, base.appearance, looks, region, made_on,
    )  # fmt: skip
    if sampling.cover == "diffcollage":
        _check_halves(plan)
    return plan


def _check_halves(plan: Plan) -> None:
    """`UserError` where half patches do not fit a canvas: DiffCollage's chains overlap by half."""
    for (height, width), index in {size: index for index, size in enumerate(plan.sizes)}.items():
        shapes = {"image": (height // plan.facts.factor, width // plan.facts.factor)}
        if not plan.masks:
            shapes["mask"] = plan.mask_shape(index)
        for stage, shape in shapes.items():
            covers = plan.model(stage).covers(*shape, index)
            for half in {covers.side(step) // 2 for step in range(covers.steps)}:
                if any(length % half for length in shape):
                    raise UserError(
                        f"sampling.cover=diffcollage: the {stage} canvas of {width}x{height} pixels is "
                        f"{shape[1]}x{shape[0]}, not a multiple of half a patch, {half}"
                    )
