"""The driver killed and started again, and a disk that is full: in processes of their own."""

import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults.helpers import ROOT, call, command, write_settings
from tests.synthesis.helpers import run, shard_hashes


@pytest.mark.slow
def test_a_killed_driver_goes_on(tiny_bundle: Path, tmp_path: Path) -> None:
    """Promise 6, every day's case: killed as its first shard stands. The same settings resume, inline."""
    many = {"n": 24, "samplers": 2, "lease": 3}
    run(tiny_bundle, tmp_path / "whole", **many)
    out, given = tmp_path / "out", write_settings(tmp_path / "settings.yaml", **many)
    line = command(tiny_bundle, out, given, "--inline")
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        while not list(out.glob("manifest/*.parquet")):
            assert driver.poll() is None, "it has ended before its first shard"
            time.sleep(0.01)
        driver.send_signal(signal.SIGKILL)
    assert driver.returncode == -signal.SIGKILL
    assert 0 < run(tiny_bundle, out, **many).already < 24
    assert shard_hashes(out) == shard_hashes(tmp_path / "whole")
    assert not list(out.rglob(".*tmp*")), "what the killed one left is gone"


@pytest.mark.faults
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(("how", "kills"), [("inline", 10), ("ray", 10)])
def test_the_driver_killed_at_random_moments(tiny_bundle: Path, tmp_path: Path, how: str, kills: int) -> None:
    """Promise 6. SIGKILL, so that nothing is cleaned up; the same command resumes."""
    import ray

    many = {"n": 24, "samplers": 2, "lease": 3}
    run(tiny_bundle, tmp_path / "whole", **many)
    given, out = write_settings(tmp_path / "settings.yaml", **many), tmp_path / "out"
    line = command(tiny_bundle, out, given, *(["--inline"] if how == "inline" else []))
    cluster = {} if how == "inline" else {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    rng, moments, ends = random.Random(), [], []
    for _ in range(kills):
        with subprocess.Popen(
            line,
            cwd=ROOT,
            env=os.environ | cluster,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as driver:
            assert driver.stdout is not None
            driver.stdout.readline()  # it has begun
            moments.append(rng.uniform(0, 1.5))
            time.sleep(moments[-1])
            driver.send_signal(signal.SIGKILL)
        ends.append(driver.returncode)
    assert ends.count(-signal.SIGKILL) >= kills // 2, "most were in the middle of their work"
    ended = call(line, **cluster)
    assert ended.returncode == 0, ended.stderr
    assert shard_hashes(out) == shard_hashes(tmp_path / "whole"), moments
    assert not list(out.rglob(".*tmp*")), "what the killed ones left is gone"


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare: a small disk of one's own")
@pytest.mark.parametrize("how", [["--inline"], pytest.param([], marks=pytest.mark.faults)])
def test_a_full_disk_is_one_line_and_nothing_is_lost(
    tiny_bundle: Path, tmp_path: Path, how: list[str]
) -> None:
    """The disk fills at the second shard; once there is room the same command resumes."""
    many = {"n": 6, "samplers": 1}
    run(tiny_bundle, tmp_path / "whole", **many)
    room = max(path.stat().st_size for path in (tmp_path / "whole").glob("shard-*.tar")) // 1024
    out = tmp_path / "out"
    out.mkdir()
    line = " ".join(command(tiny_bundle, out, write_settings(tmp_path / "settings.yaml", **many), *how))
    script = (
        f"mount -t tmpfs -o size={room + 40}k none {out} || exit 99; {line}; echo first $?; "
        f"ls {out}; mount -o remount,size=50m {out}; {line} > /dev/null; echo then $?; sha256sum {out}/*.tar"
    )
    ended = call(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script])
    if ended.returncode == 99 or "unshare" in ended.stderr:
        pytest.skip(f"no disk of one's own here: {ended.stderr.strip()}")
    assert "first 2" in ended.stdout, ended.stderr
    assert "shard-000000.tar" in ended.stdout.split("then")[0]
    assert "Traceback" not in ended.stderr
    assert re.search(r"No space left", ended.stderr), ended.stderr
    assert "then 0" in ended.stdout, ended.stderr
    hashes = {Path(name).name: digest for digest, name in re.findall(r"([0-9a-f]{64})  (\S+)", ended.stdout)}
    assert hashes == shard_hashes(tmp_path / "whole")
