"""A cluster without any GPU node: Ray's autoscaler, with its provider of fake nodes, adds one for a run."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from ray.util import get_node_ip_address

from tests.faults.helpers import ROOT, command, write_settings
from tests.faults.slurm_here import free_port
from tests.synthesis.helpers import run, shard_hashes

MARK = "DIFFGEN_AUTOSCALED"
"""In the environment of all processes of a cluster, by which they are found at its end."""
MANY = {"n": 12, "samplers": "auto"}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.faults,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds its processes in /proc"),
]
HEAD = "ray.head.default"  # as the provider of fake nodes calls it


@contextmanager
def autoscaling(folder: Path) -> Iterator[str]:
    """Address of a cluster of a head without CPUs that may grow by nodes with a CPU and a GPU each.

    Not `ray.cluster_utils.AutoscalingCluster`: it ends every other Ray of the machine (`ray stop`), and reads
    a file that the wheel lacks.
    """
    port, ray = free_port(), str(Path(sys.executable).with_name("ray"))
    address = f"{get_node_ip_address()}:{port}"
    stages = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    scaled = {
        **{f"{stage}_commands": [] for stage in stages},  # a machine that is started has none to do
        **{key: {} for key in ("auth", "docker", "file_mounts")},
        **{key: [] for key in ("cluster_synced_files", "file_mounts_sync_continuously")},
        "upscaling_speed": 1.0,
        "cluster_name": "scaled",
        "max_workers": 2,
        "idle_timeout_minutes": 2,  # between being asked for and given work a node is idle
        "provider": {
            "type": "fake_multinode",
            "gcs_address": address,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "head_node_type": HEAD,
        "available_node_types": {
            HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "gpu": {"resources": {"CPU": 1, "GPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
        },
    }
    (folder / "autoscaling.json").write_text(json.dumps(scaled), encoding="utf-8")
    own = {MARK: str(port), "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    line = [ray, "start", "--head", "--num-cpus=0", f"--port={port}", "--include-dashboard=false"]
    try:
        subprocess.run(
            [*line, f"--autoscaling-config={folder / 'autoscaling.json'}"],
            env=os.environ | own,
            check=True,
            capture_output=True,
        )
        yield address
    finally:
        wanted = f"{MARK}={port}\0".encode()
        for number in (signal.SIGTERM, signal.SIGKILL):
            for path in Path("/proc").glob("[0-9]*/environ"):
                try:
                    if wanted in path.read_bytes():
                        os.kill(int(path.parent.name), number)
                except OSError:
                    continue  # gone, or not ours
            time.sleep(2)


def ended(bundle: Path, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """A run on such a cluster, of images into `folder / "out"`."""
    line = command(bundle, folder / "out", write_settings(folder / "settings.yaml", **MANY), *more)
    with autoscaling(folder) as address:
        own = os.environ | {"RAY_ADDRESS": address}
        return subprocess.run(
            line, cwd=ROOT, env=own, capture_output=True, text=True, check=False, timeout=400
        )


def test_a_cluster_without_nodes_gets_one_that_does_all_the_work(tiny_bundle: Path, tmp_path: Path) -> None:
    """It is asked for and waited for, and images are those of one process."""
    run(tiny_bundle, tmp_path / "whole", **MANY)
    done = ended(tiny_bundle, tmp_path, "--cpu")
    assert done.returncode == 0, done.stderr
    assert "no node of the cluster has a CPU to give: asking" in done.stderr
    assert shard_hashes(tmp_path / "out") == shard_hashes(tmp_path / "whole")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a fake GPU beside a real one")
def test_a_cluster_without_gpus_gets_one_and_a_sampler_is_put_on_it(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    """As far as it goes on a machine without a GPU: the sampler finds that Ray's is not real."""
    done = ended(tiny_bundle, tmp_path)
    assert re.search(r"no node of the cluster has a GPU( or a CPU)? to give: asking", done.stderr)
    assert "Ray gives it a GPU, but torch cannot use one" in done.stderr
    assert done.returncode == 2
