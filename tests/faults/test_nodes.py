"""A node that leaves a cluster in the middle of a run, and others that join it."""

import json
import sys
from pathlib import Path

import pytest

from tests.faults.helpers import call
from tests.synthesis.helpers import run, shard_hashes

SCRIPT = """
import json, sys, time
from pathlib import Path
from ray.cluster_utils import Cluster

bundle, out, figures = sys.argv[1:]
# The head has the driver, coordinators and writer; samplers need a CPU, which only the others have.
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
leaving = cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()

from diffgen.cluster import connect
connect(cluster.address)
from diffgen.synthesis import driver, pool
from tests.synthesis.helpers import QUIET, settings

pool.LOOK_S = pool.POLL_S = 0.1
busy, told = set(), []
def watch(status):
    busy.update(status.busy)
    if status.patches >= 10 and not told:
        told.append("gone")
        cluster.remove_node(leaving, allow_graceful=False)
        cluster.add_node(num_cpus=2)

many = settings(n=40, lease=2, samplers="auto")
summary = driver.synthesize(Path(bundle), out, many, None, False, QUIET, watch=watch)
# Not printed: Ray says there what it thinks of lost nodes.
Path(figures).write_text(json.dumps({"busy": sorted(busy), "told": told}))
"""


@pytest.mark.slow
@pytest.mark.faults
def test_a_node_leaves_and_others_join(tiny_bundle: Path, tmp_path: Path) -> None:
    """`--samplers auto` follows the cluster: one sampler is lost, two work on."""
    run(tiny_bundle, tmp_path / "whole", n=40)
    places = [str(tiny_bundle), str(tmp_path / "out"), str(tmp_path / "figures.json")]
    ended = call([sys.executable, "-c", SCRIPT, *places], PYTHONPATH=".")
    assert ended.returncode == 0, ended.stderr
    assert shard_hashes(tmp_path / "out") == shard_hashes(tmp_path / "whole")
    seen = json.loads((tmp_path / "figures.json").read_text())
    assert seen["told"] == ["gone"]
    assert len(seen["busy"]) >= 3, "the lost one and both new ones"
