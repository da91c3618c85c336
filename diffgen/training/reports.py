"""What one worker tells the world while it trains: Ray's checkpoints, TensorBoard, the driver's board.

Kept true: a checkpoint is registered whole or not at all; `best/` holds the whole checkpoint of least
held-out loss; wishes of the driver (Ctrl-C) and of the cluster (a node that will be taken away) reach
the loop on every rank.
"""

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn

from diffgen.labels import Picture
from diffgen.training.board import INTERVAL_S
from diffgen.training.folder import RunFolder
from diffgen.training.loop import Hooks, Wish
from diffgen.training.trainee import AVERAGED, Trainee

NOTICE_EVERY = 10  # steps, at most: a node that is going away gives a minute or two
FLUSH_S = 10  # until a curve is on the disk; TensorBoard's own two minutes are long to wait


class Reports:
    """The hooks of one worker."""

    def __init__(
        self,
        run: RunFolder,
        part: str,
        trainee: Trainee,
        rank: int,
        board: Any,
        grid: Callable[[nn.Module], Picture],
        scalars: Callable[[Mapping[str, float]], Mapping[str, float]],
        log_every: int,
    ) -> None:
        """`grid` draws samples; `scalars` adds to the loop's figures what only the worker knows."""
        self.run, self.part, self.trainee, self.rank, self.board = run, part, trainee, rank, board
        self.grid, self.scalars, self.log_every = grid, scalars, log_every
        self.told, self.shown, self.stopping = 0.0, 0.0, False
        self.answer: Any = None
        self.step, self.noticed = trainee.step, frozenset[str]()
        self._temporary = tempfile.TemporaryDirectory()
        self.desk = run.local or Path(self._temporary.name)
        self.writer: Any = None
        if rank == 0:
            from torch.utils.tensorboard import SummaryWriter

            folder = self.desk / "tensorboard" / part
            self.writer = SummaryWriter(str(folder), purge_step=trainee.step + 1, flush_secs=FLUSH_S)

    def hooks(self) -> Hooks:
        return Hooks(self.log, self.save, self.sample, self.wish)

    def close(self) -> None:
        if self.writer:
            self.writer.close()
            self._send()
        self._temporary.cleanup()

    def tell(self, **news: Any) -> None:
        self.told, self.answer = time.monotonic(), self.board.tell.remote(**news)

    def log(self, step: int, figures: dict[str, float]) -> None:
        for name, value in self.scalars(figures).items():
            self.writer.add_scalar(f"train/{name}", value, step)
        if time.monotonic() - self.shown > INTERVAL_S:  # whatever `wish` has told in this step
            self.shown = time.monotonic()
            self.tell(step=step, loss=figures["loss"], images_per_s=figures["images_per_s"])

    def sample(self, step: int, unet: nn.Module) -> None:
        picture = self.grid(unet)
        self.writer.add_image("samples", picture, step, dataformats="HWC")
        (self.desk / "samples").mkdir(exist_ok=True)
        Image.fromarray(picture).save(self.desk / "samples" / f"{self.part}-{step:07d}.png")

    def save(self, step: int, held_out: float) -> None:
        """A checkpoint for Ray Train, and a copy of it if it is the best; a barrier of all workers."""
        import ray.train

        metrics = {"step": step, "held_out_loss": held_out}
        if self.rank:
            ray.train.report(metrics)
            return
        self.writer.add_scalar("train/held_out_loss", held_out, step)
        self.writer.flush()
        self._send()
        with tempfile.TemporaryDirectory() as folder:
            self.trainee.write(Path(folder))
            self._keep(Path(folder), step, held_out)  # before it is registered: a resumed run skips this
            checkpoint = ray.train.Checkpoint.from_directory(folder)
            ray.train.report(metrics, checkpoint=checkpoint, checkpoint_dir_name=_name(step))
        self.tell(step=step, saved=step)

    def _keep(self, checkpoint: Path, step: int, held_out: float) -> None:
        """`best/PART/step-N`, which `best/PART.json` names, and, if asked, `history/PART/step-N`."""
        mark = f"best/{self.part}.json"
        best = json.loads(self.run.read_text(mark) or "{}")
        if held_out < best.get("held_out_loss", float("inf")):
            self.run.push(checkpoint, f"best/{self.part}/{_name(step)}")
            self.run.write_text(mark, json.dumps({"step": step, "held_out_loss": held_out}) + "\n")
            if "step" in best and best["step"] != step:
                self.run.remove(f"best/{self.part}/{_name(best['step'])}")
        if self.trainee.part.keep_history:
            self.run.push(checkpoint / AVERAGED, f"history/{self.part}/{_name(step)}")

    def _send(self) -> None:
        """Curves and samples to a run that is not on this machine's filesystem."""
        if self.run.local is None:
            for name in ("tensorboard", "samples"):
                if (self.desk / name).exists():
                    self.run.push(self.desk / name, name)

    def wish(self) -> Wish:
        """Asked once a step: has the driver been told to stop, or a node been told to go?"""
        import ray
        import ray.train

        self.step += 1
        if self.answer is not None and ray.wait([self.answer], timeout=0)[0]:
            self.stopping, self.answer = ray.get(self.answer), None
        if self.step % min(self.log_every, NOTICE_EVERY):
            return Wish(stop=self.stopping)
        if self.rank == 0 and self.answer is None and time.monotonic() - self.told > INTERVAL_S:
            self.tell()  # also where nothing is logged: the answer is wanted
        notice = ray.train.get_preemption_info()  # a barrier: all ranks ask in the same step
        going = frozenset(notice.preempted_node_ids) if notice else frozenset()
        news, self.noticed = going - self.noticed, self.noticed | going
        return Wish(save=bool(news), stop=self.stopping)


def _name(step: int) -> str:
    return f"step-{step:07d}"
