"""What one worker tells the world while it trains: checkpoints, TensorBoard, whoever started it.

Invariants: `best/` holds the whole checkpoint of least held-out loss of those measured; curves and samples
are in the run before the checkpoint of their step, which is there before its held-out loss is measured. No
Ray in here: a `Link` leads to who started the worker.
"""

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from PIL import Image
from torch import nn

from diffgen.labels import Picture
from diffgen.training.checkpoints import name_of
from diffgen.training.folder import RunFolder
from diffgen.training.loop import Hooks, StopRequest
from diffgen.training.status_actor import INTERVAL_S
from diffgen.training.train_state import AVERAGED, TrainState

FLUSH_S = 10  # until a curve is on the disk; TensorBoard's own two minutes are long to wait


class Link(Protocol):
    """The way from a worker to who started it: `ray_worker.RayLink`, `inline.InlineLink`."""

    def tell(self, **news: Any) -> None:
        """News of rank 0: `step` of `of`, `loss`, `images_per_s`, `saved`; lines `start`, `note`, `end`."""
        ...

    def register(self, metrics: dict[str, float], checkpoint: Path | None) -> None:
        """Keep a checkpoint of `metrics["step"]` as the last one; called on all ranks, None but on rank 0."""
        ...

    def poll(self) -> StopRequest:
        """Asked once per step on every rank."""
        ...


class Reports:
    """The hooks of one worker."""

    def __init__(
        self,
        run: RunFolder,
        part: str,
        trainee: TrainState,
        rank: int,
        link: Link,
        grid: Callable[[nn.Module], Picture],
        scalars: Callable[[Mapping[str, float]], Mapping[str, float]],
    ) -> None:
        """`grid` draws samples; `scalars` adds to the loop's figures what only the worker knows."""
        self.run, self.part, self.trainee, self.rank, self.link = run, part, trainee, rank, link
        self.grid, self.scalars, self.shown = grid, scalars, 0.0
        self._temporary = tempfile.TemporaryDirectory()
        self.desk = run.local or Path(self._temporary.name)
        self.writer = None if rank else self._curves()

    def hooks(self) -> Hooks:
        return Hooks(self.log, self.save, self.held_out, self.sample, self.link.poll)

    def close(self) -> None:
        if self.writer:
            self.writer.close()
        if not self.rank:
            self._send()
        self._temporary.cleanup()

    def log(self, step: int, figures: dict[str, float]) -> None:
        if self.writer:
            for name, value in self.scalars(figures).items():
                self.writer.add_scalar(f"train/{name}", value, step)
        if time.monotonic() - self.shown > INTERVAL_S:
            self.shown = time.monotonic()
            told = {name: figures[name] for name in ("loss", "images_per_s")}
            self.link.tell(step=step, of=self.trainee.foreseen, **told)

    def sample(self, step: int, unet: nn.Module) -> None:
        picture = self.grid(unet)
        if self.writer:
            self.writer.add_image("samples", picture, step, dataformats="HWC")
        (self.desk / "samples").mkdir(exist_ok=True)
        Image.fromarray(picture).save(self.desk / "samples" / f"{self.part}-{step:07d}.png")

    def save(self, step: int) -> None:
        """A checkpoint; if asked, its averaged weights in `history/PART/step-N`, too."""
        if self.rank:
            self.link.register({"step": step}, None)
            return
        if self.writer:
            self.writer.flush()
        self._send()
        with tempfile.TemporaryDirectory() as folder:
            self.trainee.write(Path(folder))
            if self.trainee.part.keep_history:  # before it is registered: a resumed run skips this
                self.run.push(Path(folder) / AVERAGED, f"history/{self.part}/{name_of(step)}")
            self.link.register({"step": step}, Path(folder))
        self.link.tell(step=step, of=self.trainee.foreseen, saved=step)

    def held_out(self, step: int, loss: float) -> None:
        """Its curve and, of the least so far, `best/PART/step-N`, which `best/PART.json` names."""
        if self.rank:
            return
        if self.writer:
            self.writer.add_scalar("train/held_out_loss", loss, step)
        mark = f"best/{self.part}.json"
        best = json.loads(self.run.read_text(mark) or "{}")
        if loss < best.get("held_out_loss", float("inf")):
            with tempfile.TemporaryDirectory() as folder:
                self.trainee.write(Path(folder))
                self.run.push(Path(folder), f"best/{self.part}/{name_of(step)}")
            self.run.write_text(mark, json.dumps({"step": step, "held_out_loss": loss}) + "\n")
            if "step" in best and best["step"] != step:
                self.run.remove(f"best/{self.part}/{name_of(best['step'])}")

    def _curves(self) -> Any:
        """TensorBoard's writer; None, and a line that says so, where it is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.link.tell(note="TensorBoard is not installed: no curves are written")
            return None
        folder = self.desk / "tensorboard" / self.part
        return SummaryWriter(str(folder), purge_step=self.trainee.step + 1, flush_secs=FLUSH_S)

    def _send(self) -> None:
        """Curves and samples to a run that is not on this machine's filesystem."""
        if self.run.local is None:
            for name in ("tensorboard", "samples"):
                if (self.desk / name).exists():
                    self.run.push(self.desk / name, name)
