"""Worker: what it tells the world while it trains, in checkpoints, in TensorBoard, and to the driver.

Invariants: `best/` holds the whole checkpoint of least held-out loss of those measured; curves and samples
are in the run before the checkpoint of their step, which is there before its held-out loss is measured.
"""

import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn

from diffgen.storage import Folder
from diffgen.training.checkpoints import name_of
from diffgen.training.loop import Hooks
from diffgen.training.status_actor import INTERVAL_S
from diffgen.training.train_state import AVERAGED, Fitting
from diffgen.training.worker_link import Link

FLUSH_S = 10  # until a curve is on the disk; TensorBoard's own two minutes are long to wait


class Reports:
    """The hooks of one worker."""

    def __init__(self, run: Folder, part: str, fitting: Fitting, rank: int, link: Link) -> None:
        self.run, self.part, self.fitting, self.rank, self.link = run, part, fitting, rank, link
        self.state, self.logged_at = fitting.state, 0.0
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
            for name, value in self.fitting.scalars(figures).items():
                self.writer.add_scalar(f"train/{name}", value, step)
        if time.monotonic() - self.logged_at > INTERVAL_S:
            self.logged_at = time.monotonic()
            news = {name: figures[name] for name in ("loss", "images_per_s")}
            self.link.tell(step=step, of=self.state.foreseen, **news)

    def sample(self, step: int, unet: nn.Module) -> None:
        picture = self.fitting.grid(unet)
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
            self.state.write(Path(folder))
            if self.state.part.keep_history:  # before it is registered: a resumed run skips this
                self.run.push(Path(folder) / AVERAGED, f"history/{self.part}/{name_of(step)}")
            self.link.register({"step": step}, Path(folder))
        self.link.tell(step=step, of=self.state.foreseen, saved=step)

    def held_out(self, step: int, loss: float) -> None:
        """Its curve and, of the least so far, `best/PART/step-N`, which `best/PART.json` names."""
        if self.rank:
            return
        if self.writer:
            self.writer.add_scalar("train/held_out_loss", loss, step)
        if self.fitting.psnr:
            decibels = 10 * math.log10(4 / max(loss, 1e-12))
            if self.writer:
                self.writer.add_scalar("train/held_out_psnr", decibels, step)
            self.link.tell(note=f"{self.part} at step {step}: {decibels:.1f} dB held-out PSNR")
        mark = f"best/{self.part}.json"
        best = json.loads(self.run.read_text(mark) or "{}")
        if loss < best.get("held_out_loss", float("inf")):
            with tempfile.TemporaryDirectory() as folder:
                self.state.write(Path(folder))
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
        return SummaryWriter(str(folder), purge_step=self.state.step + 1, flush_secs=FLUSH_S)

    def _send(self) -> None:
        """Curves and samples to a run that is not on this machine's filesystem."""
        if self.run.local is None:
            for name in ("tensorboard", "samples"):
                if (self.desk / name).exists():
                    self.run.push(self.desk / name, name)
