"""Two workers on two hosts, data and run behind `s3://`: what a host takes with it is made up for."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from diffgen import config
from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.training.driver import launch
from tests.cluster.site import Site
from tests.conftest import TINY
from tests.data import prepared
from tests.faults.training_helpers import WORKER, beginnings, curve, same
from tests.synthesis.helpers import QUIET

pytestmark = pytest.mark.cluster
STEPS, EVERY = 60, 15


def training(runs: str, **mask: Any) -> config.Settings:
    part = {"steps": STEPS, "batch": 4, "checkpoint_every": EVERY, "sample_every": STEPS, **mask}
    changes = {"places": {"runs": runs, "run": "one"}, "training": {"log_every": 1, "mask": part}}
    return config.validate(config.merge(TINY, changes))


@pytest.fixture(scope="session")
def data(labels: Labels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared.make(tmp_path_factory.mktemp("data"), config.validate(TINY), labels, maps=12)


@pytest.fixture(scope="session")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """Step → loss of one process."""
    place = tmp_path_factory.mktemp("inline")
    launch(["mask"], data, f"{place}/one", training(str(place)), QUIET, inline=True)
    return curve(place / "one" / "tensorboard" / "mask")


def with_workers(site: Site) -> list[str]:
    """Hosts on which training has a worker."""
    found = []
    for name in site.nodes:
        titles = [Path(f"/proc/{pid}/cmdline") for pid in site[name].pids()]
        if any(path.exists() and WORKER.encode() in path.read_bytes() for path in titles):
            found.append(name)
    return found


def test_a_host_is_cut_off_while_two_train(
    site: Site, data: Path, undisturbed: dict[int, float], tmp_path: Path
) -> None:
    url = site.store.put(data, "data")
    name = site.settings("training.yaml", training("s3://bucket/runs").dump())
    line = ["diffgen", "train", "mask", "--data", url, "--config", name, "--set", "training.workers=2"]
    site.store.log()
    job, run = site.submit(*line), site.store.folder("runs/one")

    def saved() -> int:
        return max((int(step) for step in re.findall(r"step-(\d+)", " ".join(run.tree("train")))), default=0)

    job.until("a checkpoint", lambda: saved() >= EVERY)
    at_work = with_workers(site)
    assert len(at_work) == 2
    site[at_work[1]].cut()
    said = job.ends()
    assert "bundle: s3://bucket/runs/one/bundle" in said
    begins = beginnings(said)
    assert len(begins) == 2, said
    assert begins[1] >= EVERY
    same(curve(run.pull("tensorboard/mask", tmp_path / "curve")), undisturbed, range(1, STEPS + 1))
    assert bundle.load(run.pull("bundle", tmp_path / "bundle")).mask_unet is not None
    log = site.store.log()
    tars = Counter((r["from"], r["path"]) for r in log if r["method"] == "GET" and ".tar" in str(r["path"]))
    assert len({host for host, _ in tars}) >= 3, "the head, and a node for each worker"
    assert set(tars.values()) == {1}, "each node fetches the data once"
