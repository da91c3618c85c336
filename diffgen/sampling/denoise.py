"""Guided noise estimates of patches: a pure function of weights, patches and settings.

Only labels that own a pixel of the patch are run, and the ∅ pass is shared: a patch costs
(owning labels other than 0) + 1 forward if it is guided by label or label 0 owns a pixel. Guided by a
worse network (`auto`) each of its forwards is one of that network too.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffgen.labels import UNKNOWN, LabelMap
from diffgen.models.device import device_of, moved
from diffgen.sampling.canvas import Patch
from diffgen.sampling.covers import Cover, CoverSchedule
from diffgen.sampling.guidance import Guidance

Conditioning = Literal["per_label", "joint"]
JOINT = -1  # the one conditional forward of a patch under joint conditioning


class Denoiser(Protocol):
    """ε_θ: noisy patches (B, C, h, w), time steps (B,), label maps (B, h, w) → estimates (B, C, h, w).

    Where images have a `GlobalCondition`, their contexts (B,) and appearances (B, A) follow.
    """

    def __call__(
        self, latents: Tensor, timesteps: Tensor, label_maps: Tensor, /, *whole: Tensor
    ) -> Tensor: ...


def conditions(
    labels: LabelMap, owned: NDArray[np.bool_], guidance: Guidance, conditioning: Conditioning
) -> list[int]:
    """The conditions that a patch (h, w) needs: label ids, `JOINT`, and last `UNKNOWN` for the ∅ pass.

    `guidance` is that of the patch's noise level.
    """
    owning = np.flatnonzero(np.bincount(labels[owned])).tolist()
    given = [label for label in owning if label != UNKNOWN]
    if conditioning == "joint":
        given = [JOINT] if labels.any() else []
        null = bool(guidance.by_label) or not given
    else:
        null = bool(guidance.by_label) or UNKNOWN in owning
    return given + [UNKNOWN] * null


def num_forwards(
    labels: LabelMap, owned: NDArray[np.bool_], guidance: Guidance, conditioning: Conditioning
) -> int:
    """Forwards that a patch (h, w) takes."""
    return len(conditions(labels, owned, guidance, conditioning)) * (2 if guidance.by_network else 1)


def forwards_of(
    cover: Cover, label_map: LabelMap, guidance: Guidance, conditioning: Conditioning
) -> dict[int, int]:
    """Patch → forwards that it takes, under the label map (H, W) of the cover's canvas."""
    if conditioning == "joint" and label_map.all():  # all alike: a large canvas has thousands
        one = label_map[:1, :1]
        return dict.fromkeys(range(len(cover)), num_forwards(one, one > 0, guidance, conditioning))
    return {
        patch: num_forwards(label_map[cover.box(patch)], cover.owned(patch), guidance, conditioning)
        for patch in range(len(cover))
    }


def condition_map(labels: LabelMap, condition: int) -> LabelMap:
    """The label map a forward sees: all labels (joint), one label and elsewhere 0, or only 0 (∅)."""
    return labels if condition == JOINT else np.where(labels == condition, labels, UNKNOWN)


def forwards(
    label_map: LabelMap, covers: CoverSchedule, guidance: Guidance, conditioning: Conditioning
) -> int:
    """Forwards of the base patch that a canvas under this label map will take, exactly."""
    total = 0
    for step, cover in enumerate(covers):
        here = guidance.at(covers.log_snr[step % len(covers.log_snr)])  # outpainting: window by window
        for number, needed in forwards_of(cover, label_map, here, conditioning).items():
            total += needed * covers.cost(cover.shape(number))
    return total


def batch_size(micro_batch: int, base: int, shape: tuple[int, int]) -> int:
    """Patches (h, w) a forward: as many pixels as `micro_batch` base patches have."""
    return max(1, micro_batch * base**2 // (shape[0] * shape[1]))


@torch.inference_mode()
def estimate(
    denoiser: Denoiser,
    patches: Sequence[Patch],
    guidance: Guidance,
    conditioning: Conditioning,
    micro_batch: int,
    worse: Denoiser | None = None,
    bf16: bool = False,
) -> list[NDArray[np.float32]]:
    """Guided estimates (C, owned pixels) of patches of one size, every pixel under its own label M_i.

    All (patch, label) pairs go through the network, on the device that it is on, in batches of one fixed
    size, the last one padded, so that a result does not depend on what else was asked for. `auto` guides away
    from `worse`. `bf16`: the networks alone compute in it, by autocast.
    """
    device = device_of(denoiser)
    here = [guidance.at(patch.log_snr) for patch in patches]
    needed = [conditions(p.labels, p.owned, g, conditioning) for p, g in zip(patches, here, strict=True)]
    pairs = [(i, condition) for i, of_patch in enumerate(needed) for condition in of_patch]
    guided = [(i, condition) for i, condition in pairs if here[i].by_network]
    outputs = [
        dict[int, Tensor]() for _ in patches
    ]  # condition → estimate (C, h, w), on the network's device
    others = [dict[int, Tensor]() for _ in patches]
    for network, asked, found in ((denoiser, pairs, outputs), (worse, guided, others)):
        for start in range(0, len(asked), micro_batch):
            assert network is not None, "auto guidance has a worse network"
            batch = asked[start : start + micro_batch]
            padded = [*batch, *[batch[-1]] * (micro_batch - len(batch))]
            latents = torch.from_numpy(np.stack([patches[i].latents for i, _ in padded]))
            timesteps = torch.tensor([patches[i].timestep for i, _ in padded])
            maps = torch.from_numpy(np.stack([condition_map(patches[i].labels, c) for i, c in padded]))
            whole = global_conditions([patches[i] for i, _ in padded])
            given = [moved(tensor, device) for tensor in (latents, timesteps, maps, *whole)]
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                result = network(*given)
            result = result.to(torch.float32, copy=True)  # a CUDA graph's next run writes over its own
            for row, (i, condition) in enumerate(batch):
                found[i][condition] = result[row]
    for i, condition in guided:  # a condition at a time
        outputs[i][condition] = _apart(patches[i], outputs[i][condition], others[i][condition], here[i])
    combined = [_combine(patch, outputs[i], here[i]) for i, patch in enumerate(patches)]
    together = torch.cat(combined, dim=1).cpu().numpy()  # one copy from a GPU per lease
    ends = np.cumsum([part.shape[1] for part in combined])[:-1]
    return np.split(together, ends, axis=1)


def global_conditions(patches: Sequence[Patch]) -> tuple[Tensor, ...]:
    """Contexts (B,) and, if any has one, appearances (B, A; ∅ as NaN) of patches; () where there are none."""
    given = [patch.whole for patch in patches if patch.whole is not None]
    if not given:
        return ()
    assert len(given) == len(patches), "all patches are of images with a global condition, or none is"
    contexts = torch.tensor([whole.context for whole in given])
    known = next((whole.appearance for whole in given if whole.appearance is not None), None)
    if known is None:
        return (contexts,)
    null = np.full_like(known, np.nan)
    rows = [null if whole.appearance is None else whole.appearance for whole in given]
    return contexts, torch.from_numpy(np.stack(rows))


def _combine(patch: Patch, outputs: dict[int, Tensor], guidance: Guidance) -> Tensor:
    """(1 + ω)·ε(z, M_i) − ω·ε(z, ∅) a pixel, eq. (2) and Alg. 2, line 12; owned pixels only: (C, owned)."""
    device = next(iter(outputs.values())).device
    owned = torch.from_numpy(np.flatnonzero(patch.owned)).to(device, non_blocking=True)
    null = outputs.get(UNKNOWN)

    def own(given: Tensor) -> Tensor:
        guided = given if null is None or not guidance.by_label else _apart(patch, given, null, guidance)
        return guided.flatten(1)[:, owned]

    if JOINT in outputs:
        return own(outputs[JOINT])
    labels = torch.from_numpy(patch.labels[patch.owned]).to(device, non_blocking=True)
    first = next(iter(outputs.values())) if null is None else null
    combined = first.flatten(1)[:, owned]
    for label, output in outputs.items():
        if label != UNKNOWN:
            combined = torch.where(labels == label, own(output), combined)
    return combined


def _apart(patch: Patch, given: Tensor, away: Tensor, guidance: Guidance) -> Tensor:
    return guidance.apart(given, away, moved(torch.from_numpy(patch.latents), given.device), patch.log_snr)
