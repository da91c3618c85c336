"""What rank 0 tells the driver between checkpoints."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from diffgen import config
from diffgen.storage import Folder
from diffgen.training import worker_link, worker_reports
from diffgen.training.loop import DistContext
from diffgen.training.status_actor import StatusActor
from diffgen.training.worker_link import RayLink
from diffgen.training.worker_reports import Reports
from tests.training.test_worker_link import Here


@pytest.mark.parametrize("seconds", [0.01, 3.0])
def test_the_driver_hears_of_step_and_loss_however_slow_the_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Wishes are asked for before a step is logged: what that tells does not keep the log still."""
    import ray
    import ray.train

    now = [100.0]
    for module in (worker_reports, worker_link):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(ray, "wait", lambda refs, timeout: (refs, []))  # noqa: ARG005 # Ray's names
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    monkeypatch.setattr(ray.train, "get_preemption_info", lambda: None)
    board, state = StatusActor(), SimpleNamespace(step=0, part=None, foreseen=500)
    link = RayLink(Here(board), config.Training(log_every=10))
    link.place = DistContext()
    fitting: Any = SimpleNamespace(state=state, scalars=dict, psnr=False)  # as much of one as is asked for
    made = Reports(Folder(str(tmp_path)), "mask", fitting, 0, link)
    for step in range(1, 501):
        now[0] += seconds
        link.poll()
        if step % 10 == 0:
            made.log(step, {"loss": 1.0 / step, "images_per_s": 7.0})
            if seconds > 1:
                assert (board.news["step"], board.news["loss"]) == (step, 1.0 / step)
    made.close()
    assert board.news["step"] > 350
    assert board.news["loss"] == 1.0 / board.news["step"]
    board.stop()
