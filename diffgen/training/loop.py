"""The training loop of one worker: no Ray in here.

What it keeps true: a checkpoint holds all that the next step depends on, so a resumed run takes the
same steps as an undisturbed one. All workers call `Progress` and `Checkpoints` equally often.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import EMAModel
from torch import nn
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from diffgen import config
from diffgen.errors import UserError
from diffgen.training.algorithm import Source, loss

WEIGHTS, AVERAGED = "unet", "unet_averaged"
STATE, PROGRESS = "state.pt", "progress.json"


@dataclass(frozen=True)
class Place:
    """Where a worker stands among the others."""

    rank: int = 0
    workers: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def share(self, batch: int) -> range:
        """Numbers of this worker's samples in the global batch."""
        return range(self.rank, batch, self.workers)


@dataclass(frozen=True)
class Hooks:
    """What the loop calls out for; the launch ties them to Ray Train, tests to plain functions."""

    log: Callable[[int, dict[str, float]], None]
    """(step, figures) after each step, on rank 0 only."""
    save: Callable[[int, Callable[[Path], None]], None]
    """(step, write) at intervals, on every rank; `write` puts a checkpoint into a folder."""
    sample: Callable[[int, nn.Module], None]
    """(step, U-Net with averaged weights) at intervals, on rank 0 only."""


class Trainee:
    """One U-Net with its optimiser, learning-rate schedule and moving average."""

    def __init__(self, unet: Any, part: config.Part) -> None:
        self.unet, self.part, self.step = unet, part, 0
        make = AdamW if part.optimizer == "adamw" else Adam
        self.optimizer: Optimizer = make(
            unet.parameters(), lr=part.lr, betas=part.betas, weight_decay=part.weight_decay
        )
        self.rate = OneCycleLR(
            self.optimizer, part.lr, total_steps=part.steps + 1, pct_start=part.warmup, cycle_momentum=False
        )
        self.ema = EMAModel(unet.parameters(), decay=part.ema, use_ema_warmup=True, power=2 / 3)

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
        (folder / PROGRESS).write_text(json.dumps({"step": self.step}))

    def read(self, folder: Path) -> None:
        """Go on from a checkpoint."""
        read = partial(type(self.unet).from_pretrained, use_safetensors=True, low_cpu_mem_usage=False)
        self.unet.load_state_dict(read(folder / WEIGHTS).state_dict())
        device = next(self.unet.parameters()).device
        state = torch.load(folder / STATE, map_location=device, weights_only=True)
        self.optimizer.load_state_dict(state["optimizer"])
        self.rate.load_state_dict(state["rate"])
        self.ema.shadow_params = [p.detach().to(device) for p in read(folder / AVERAGED).parameters()]
        self.ema.optimization_step = state["averaged_steps"]
        self.step = json.loads((folder / PROGRESS).read_text())["step"]

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


def train(
    trainee: Trainee,
    model: nn.Module,
    source: Source,
    schedule: DDPMScheduler,
    place: Place,
    hooks: Hooks,
) -> None:
    """Steps of Algorithm 1 until `trainee.part.steps`; `model` is the U-Net, or the DDP around it.

    Raises `UserError` when a gradient is not finite: the last checkpoint stays.
    """
    part = trainee.part
    trainee.unet.train()
    while trainee.step < part.steps:
        began = time.perf_counter()
        batch = source.batch(trainee.step, place.share(part.batch)).to(place.device)
        waited = time.perf_counter() - began
        value = loss(model, schedule, batch)
        value.backward()  # type: ignore[no-untyped-call]  # torch's is not annotated
        norm = float(nn.utils.clip_grad_norm_(trainee.unet.parameters(), part.clip))
        if not math.isfinite(norm):  # DDP has shared the gradients, so all workers stop in the same step
            raise UserError(
                f"training: the gradient is not finite in step {trainee.step + 1}; try a smaller lr"
            )
        rate = float(trainee.rate.get_last_lr()[0])
        figures = {"loss": float(value.detach()), "gradient_norm": norm, "lr": rate}
        trainee.optimizer.step()
        trainee.optimizer.zero_grad(set_to_none=True)
        trainee.rate.step()
        trainee.ema.step(trainee.unet.parameters())
        trainee.step += 1
        if place.rank == 0:
            seconds = time.perf_counter() - began
            figures |= {"images_per_s": part.batch / seconds, "data_wait_share": waited / seconds}
            hooks.log(trainee.step, figures)
            if trainee.step % part.sample_every == 0 or trainee.step == part.steps:
                trainee.averaged(partial(hooks.sample, trainee.step))
        if trainee.step % part.checkpoint_every == 0 or trainee.step == part.steps:
            hooks.save(trainee.step, trainee.write)
