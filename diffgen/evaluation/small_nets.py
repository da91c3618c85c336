"""The small, standard networks that synthetic images are put to use with (Section 5.3), and their training.

Segmentation: MONAI's residual U-Net, Dice and cross-entropy. Classification: a small DenseNet of MONAI,
cross-entropy. Invariants: on a CPU weights are a function of the data, the settings and the seed, for one
number of threads; whatever a network is trained on, steps, schedule and augmentations are the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from monai.losses import DiceLoss
from monai.networks.nets import DenseNet, UNet
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from diffgen.config import Downstream

TaskName = Literal["classification", "segmentation"]
VERSION = 2
"""Raised when networks, losses or augmentations change: results of older ones are not taken for theirs."""
WEIGHT_DECAY = 1e-2
GAIN, OFFSET = 0.2, 0.05
"""Largest change of a picture's optical density, a channel: about what staining and scanning vary by."""
SCALE = 1.25
"""Largest factor by which a picture is enlarged or reduced."""
DECAY = 0.98
"""Of the average of weights that is looked at before a training ends: as if the rate had come to rest."""
IGNORED = -1
_dice = DiceLoss(softmax=True, to_onehot_y=True, batch=True, ignore_index=IGNORED)


def build(task: TaskName, classes: int, width: int, seed: int) -> nn.Module:
    """A new network: pictures as of `densities` → logits (B, classes, H, W), or (B, classes).

    Its norms look at one picture at a time, so a batch of real and synthetic pictures is no third domain.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if task == "segmentation":
            widths = [width << level for level in range(4)]
            network: nn.Module = UNet(2, 3, classes, widths, (2, 2, 2), num_res_units=2, norm="instance")
            return network
        return DenseNet(
            2, 3, classes, init_features=width, growth_rate=width, block_config=(3, 6, 6, 4),
            norm=("group", {"num_groups": 1}),
        )  # fmt: skip


def densities(pictures: NDArray[np.uint8]) -> Tensor:
    """8-bit RGB (B, H, W, 3) → optical densities (B, 3, H, W), −log10((x + 1) / 256)."""
    x = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float()
    return -torch.log10((x + 1) / 256)


def draws(
    pools: Sequence[NDArray[np.intp]], shares: Sequence[float], batch: int, steps: int, seed: int
) -> NDArray[np.intp]:
    """(steps, batch) numbers of regions: each pool gives its share of all, spread evenly, all of it in turn.

    `shares` add up to 1; where batch × share is whole, every batch has just so many.
    """
    rng, count = np.random.default_rng(seed), steps * batch
    wanted, given = np.asarray(shares, float), np.zeros(len(pools))
    turns = np.empty(count, np.intp)
    for place in range(count):  # to the pool that is furthest behind its share
        turns[place] = np.argmax(np.round(wanted * (place + 1) - given, 9))
        given[turns[place]] += 1
    order = np.empty(count, np.intp)
    for number, pool in enumerate(pools):
        part = np.flatnonzero(turns == number)
        order[part] = np.concatenate(
            [rng.permutation(pool) for _ in range(-(-len(part) // len(pool)))] or [part]
        )[: len(part)]
    return order.reshape(steps, batch)


@dataclass
class Checkpoints:
    """Looks at a training between its steps, and keeps the weights that score best."""

    at: frozenset[int]
    """Steps done in this part of a training, after which it may end."""
    score: Callable[[nn.Module], float]
    scores: dict[int, float] = field(default_factory=dict)
    """By step."""
    best: dict[str, Tensor] = field(default_factory=dict)

    def look(self, step: int, averaged: nn.Module) -> None:
        if step in self.at:
            self.scores[step] = self.score(averaged)
            if self.scores[step] >= max(self.scores.values()):
                self.best = {name: tensor.clone() for name, tensor in averaged.state_dict().items()}


def fit(
    network: nn.Module,
    task: TaskName,
    pictures: NDArray[np.uint8],
    targets: NDArray[Any],
    order: NDArray[np.intp],
    settings: Downstream,
    seed: int,
    device: str = "cpu",
    checkpoints: Checkpoints | None = None,
) -> None:
    """Train on pictures (N, H, W, 3) and their label maps (N, H, W), or 0 and 1 (N,).

    `order` (steps, batch) says which are seen when. With `checkpoints` the network has the best of the
    averaged weights at the end, else the last ones.
    """
    network.to(device).train()
    average: Any = get_ema_multi_avg_fn
    averaged = AveragedModel(network, multi_avg_fn=average(DECAY)) if checkpoints else None
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(network.parameters(), settings.lr, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, total_steps=len(order))
    for step, numbers in enumerate(order, 1):
        x, y = augmented(densities(pictures[numbers]), torch.from_numpy(targets[numbers]), rng)
        lost = loss(task, network(x.to(device)), y.to(device))
        optimizer.zero_grad()
        torch.autograd.backward(lost)
        optimizer.step()
        schedule.step()
        if checkpoints and averaged:
            averaged.update_parameters(network)
            checkpoints.look(step, averaged.module)
    if checkpoints and checkpoints.best:
        network.load_state_dict(checkpoints.best)


def augmented(x: Tensor, y: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Densities (B, 3, H, W) turned, flipped, scaled, stained anew.

    Label maps (B, H, W) go along, by the nearest pixel; (B,) stays.
    """
    turns, flips = rng.integers(4, size=len(x)).tolist(), rng.integers(2, size=len(x)).tolist()

    def turned(whole: Tensor) -> Tensor:
        return torch.stack([
            torch.rot90(one.flip(-1) if flip else one, turn, (-2, -1))
            for one, turn, flip in zip(whole, turns, flips, strict=True)
        ])  # fmt: skip

    gain, offset = (
        torch.from_numpy(rng.uniform(-most, most, (len(x), 3, 1, 1)).astype(np.float32))
        for most in (GAIN, OFFSET)
    )
    factors = torch.from_numpy(SCALE ** rng.uniform(-1, 1, len(x)).astype(np.float32))
    stained = scaled(turned(x), factors, "bilinear") * (1 + gain) + offset
    return stained, scaled(turned(y)[:, None], factors, "nearest")[:, 0] if y.ndim > 1 else y


def scaled(x: Tensor, factors: Tensor, mode: str) -> Tensor:
    """Pictures (B, C, H, W) enlarged about their centres by `factors` (B,); reflected where they end."""
    zoom = torch.diag_embed(torch.stack([1 / factors, 1 / factors], dim=1))
    grid = F.affine_grid(F.pad(zoom, (0, 1)), list(x.shape), align_corners=False)
    found = F.grid_sample(x.float(), grid, mode, "reflection", align_corners=False)
    return found if mode == "bilinear" else found.round().to(x.dtype)


def loss(task: TaskName, logits: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy; of segmentation, and the Dice loss pooled over the batch, of known pixels alone."""
    if task == "classification":
        return F.cross_entropy(logits, y.long())
    target = y.long() - 1  # logits are of the known classes: unknown becomes `IGNORED`
    known = (target != IGNORED).sum().clamp(min=1)
    entropy = F.cross_entropy(logits, target, ignore_index=IGNORED, reduction="sum") / known
    return entropy + _dice(logits, target[:, None])


@torch.inference_mode()
def predict(
    network: nn.Module, task: TaskName, pictures: NDArray[np.uint8], device: str = "cpu"
) -> NDArray[np.uint8]:
    """Likeliest class ids of pictures (B, H, W, 3): label maps (B, H, W), or 0 and 1 (B,)."""
    found = network.to(device).eval()(densities(pictures).to(device)).argmax(dim=1)
    return (found + (task == "segmentation")).to(torch.uint8).cpu().numpy()
