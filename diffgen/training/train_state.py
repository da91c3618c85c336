"""One U-Net in training, with all that its next step depends on, and how that goes to disk and back."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers.training_utils import EMAModel
from torch import nn
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from diffgen import config
from diffgen.labels import Picture
from diffgen.training.algorithm import BatchSource, Objective

WEIGHTS, AVERAGED = "unet", "unet_averaged"
STATE, PROGRESS = "state.pt", "progress.json"
BETAS = 0.9, 0.99
"""Of Adam: a shorter memory of the squares than torch's 0.999, as EDM2 has it (Karras et al., 2024)."""


class TrainState:
    """One U-Net with its optimiser, learning-rate schedule and moving average."""

    def __init__(self, unet: Any, part: config.Optimization, max_seconds: float | None = None) -> None:
        """`unet` lies on its device; `max_seconds` of training are its end where `part.steps` are not."""
        self.unet, self.part, self.max_seconds = unet, part, max_seconds
        self.step, self.elapsed = 0, 0.0
        """Steps taken and seconds trained, those before a resumption included."""
        self.fused = True if next(unet.parameters()).device.type == "cuda" else None
        make = AdamW if part.optimizer == "adamw" else Adam
        self.optimizer: Optimizer = make(
            unet.parameters(), lr=part.lr, betas=BETAS, weight_decay=part.weight_decay, fused=self.fused
        )
        total = part.steps + 1
        rising = max(part.warmup, 2 / total)  # of a shorter rise OneCycleLR divides by zero
        self.rate = OneCycleLR(
            self.optimizer, part.lr, total_steps=total, pct_start=rising, cycle_momentum=False
        )
        self.ema = _average(unet, part)

    @property
    def finished(self) -> bool:
        return self.step >= self.part.steps or self.out_of_time

    @property
    def out_of_time(self) -> bool:
        return self.max_seconds is not None and self.elapsed >= self.max_seconds

    @property
    def progress(self) -> float:
        """From 0 to 1: as far along as steps or time are, whichever is further."""
        by_time = 0.0 if self.max_seconds is None else min(1.0, self.elapsed / self.max_seconds)
        return max(self.step / self.part.steps, by_time)

    @property
    def foreseen(self) -> int:
        """Steps that there will be in all, by the time that those before took."""
        if self.max_seconds is None or not self.elapsed:
            return self.part.steps
        return min(self.part.steps, max(self.step, round(self.step * self.max_seconds / self.elapsed)))

    def advance(self) -> float:
        """One step of the optimiser by the gradients that are there; the rate that it was taken with."""
        rate = float(self.optimizer.param_groups[0]["lr"])
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._schedule()
        if self.step % self.part.ema_every == 0:
            self.ema.step(self.unet.parameters())
        return rate

    def _schedule(self) -> None:
        """The rate of the next step."""
        at = self.part.steps * self.progress
        self.rate.last_epoch = at - 1  # type: ignore[assignment]  # OneCycleLR takes fractions of a step
        self.rate.step()

    def write(self, folder: Path) -> None:
        """Both sets of weights as safetensors, the rest as tensors that load with `weights_only=True`."""
        self.unet.save_pretrained(folder / WEIGHTS)
        self.averaged(lambda unet: unet.save_pretrained(folder / AVERAGED))
        state = {
            "optimizer": self.optimizer.state_dict(),
            "rate": self.rate.state_dict(),
            "averaged_steps": self.ema.optimization_step,
        }
        torch.save(state, folder / STATE)
        (folder / PROGRESS).write_text(json.dumps({"step": self.step, "elapsed": self.elapsed}))

    def read(self, folder: Path) -> None:
        """Resume from a checkpoint, with this training's `lr` if that has changed."""
        read = partial(type(self.unet).from_pretrained, use_safetensors=True, low_cpu_mem_usage=False)
        self.unet.load_state_dict(read(folder / WEIGHTS).state_dict())
        device = next(self.unet.parameters()).device
        # Adam keeps its step counts where they are read, and each on a GPU would be waited for each step.
        state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
        for group in state["optimizer"]["param_groups"]:
            group["fused"] = self.fused  # of this device, whichever the checkpoint is from
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            if (change := self.part.lr / group["max_lr"]) != 1:
                group |= {key: group[key] * change for key in ("lr", "initial_lr", "max_lr", "min_lr")}
        self.rate.load_state_dict(state["rate"])
        self.ema.shadow_params = [p.detach().to(device) for p in read(folder / AVERAGED).parameters()]
        self.ema.optimization_step = state["averaged_steps"]
        progress = json.loads((folder / PROGRESS).read_text())
        self.step, self.elapsed = progress["step"], progress.get("elapsed", 0.0)

    def averaged(self, run: Callable[[Any], None]) -> None:
        """Call `run` with the averaged weights in place of the trained ones."""
        self.ema.store(self.unet.parameters())
        self.ema.copy_to(self.unet.parameters())
        self.unet.eval()
        try:
            run(self.unet)
        finally:
            self.ema.restore(self.unet.parameters())
            self.unet.train()


class Fitting(NamedTuple):
    """A network in training: what it learns, from what, and how that is looked at."""

    state: TrainState
    objective: Objective
    source: BatchSource
    held_out: BatchSource
    grid: Callable[[nn.Module], Picture]
    """Draws samples."""
    scalars: Callable[[Mapping[str, float]], dict[str, float]] = dict
    """Adds to the loop's figures what only the worker knows."""
    names: Sequence[str] = ()
    """Of the label ids."""
    psnr: bool = False
    """Whether the held-out loss is a squared error of pixels in [−1, 1], to be told in decibels too."""


def _average(unet: Any, part: config.Optimization) -> EMAModel:
    """A moving average of growing decay up to `ema`, or the power-function average of a relative width.

    A decay of 1 − (1 + s/(γ+1))⁻¹ is, for large s, the 1 − (γ+1)/s of Karras et al. (2024, eq. 127).
    """
    if part.ema_length is None:
        return EMAModel(unet.parameters(), decay=part.ema, use_ema_warmup=True, power=2 / 3, foreach=True)
    width = power_exponent(part.ema_length) + 1
    return EMAModel(
        unet.parameters(), decay=1.0, use_ema_warmup=True, inv_gamma=width, power=1.0, foreach=True
    )


def power_exponent(length: float) -> float:
    """γ of a relative width σ_rel = √(γ+1) / ((γ+2) √(γ+3)) (Karras et al., 2024, eq. 126)."""
    inverse = length**-2
    # σ⁻² (γ+1) = (γ+2)² (γ+3)
    roots = np.roots([1, 7, 16 - inverse, 12 - inverse])
    return float(roots.real.max())
