"""The command line as a user meets it: help, one line for a mistake, status 2."""

import contextlib
import io
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pyarrow.parquet as pq
import pytest
import torch
from ray.exceptions import (
    ActorDiedError,
    OutOfDiskError,
    OutOfMemoryError,
    RayTaskError,
    UserCodeException,
)

from diffgen.cli import main
from diffgen.errors import IncompleteError, UserError
from diffgen.places import presets

BIN = Path(sys.executable).parent / "diffgen"


def diffgen(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The entry point, in this process: each of its own would load torch and diffusers anew."""
    out, err, status = io.StringIO(), io.StringIO(), None
    with (
        contextlib.chdir(cwd),
        mock.patch.object(sys, "argv", ["diffgen", *words]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            status = end.code
    assert isinstance(status, int)
    return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())


@pytest.mark.parametrize(
    "command",
    [[], ["prepare"], ["train"], ["synthesize"], ["filter"], ["export"], ["status"], ["doctor"]],
)
def test_help_teaches_and_imports_nothing_heavy(command: list[str], tmp_path: Path) -> None:
    code = f"""
import sys
sys.argv = ["diffgen", *{command!r}, "--help"]
from diffgen.cli import main
try:
    main()
except SystemExit:
    pass
heavy = {{"torch", "ray", "numpy", "diffusers", "pyarrow"}} & set(sys.modules)
assert not heavy, heavy
"""
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Example:" in done.stdout


def test_python_m_is_the_command_and_help_names_the_presets_that_are_there(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "diffgen", "train", "--help"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "--cpu" in done.stdout
    assert all(preset in done.stdout for preset in presets())


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["prepare", "absent.svs"], "absent.svs"),
        (["prepare", ".", "--set", "prepare.mp=1"], "prepare.mp: unknown key; allowed here: mpp"),
        (["prepare", ".", "--labels", "magic"], "'magic'"),
        (["prepare", ".", "-c", "huge"], "preset 'huge' is unknown"),
        (["train"], "diffgen prepare"),
        (["filter", "nowhere"], "no real images to judge by: --real DATA"),
        (["filter", "nowhere", "--real", "data"], "nowhere: no shards can be read there"),
        (
            ["filter", "nowhere", "--set", "filter.factor=2"],
            "filter.factor: unknown key; allowed here: checks",
        ),
        (["synthesize", "--real", "data"], "--real is of --filter"),
        (["train", "masks"], "expected both, image, mask or autoencoder"),
        (["train", "--data", "nowhere"], "nowhere holds no prepared data"),
        (["train", "--set", "places=3", "--data", "nowhere"], "nowhere holds no prepared data"),
        (["train", "--set", "places=3"], "diffgen prepare"),
        (["synthesize", "--bundle", "nowhere"], "'nowhere': no such folder, and none of that name ships"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(words: list[str], named: str, tmp_path: Path) -> None:
    """Promise 9."""
    done = diffgen(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert named in done.stderr


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--size", "33"], "--size 33: sides must be multiples of 4 from 32"),
        (["--size", "big"], "expected S or WxH"),
        (["--n", "0"], "synthesis.n = 0"),
        (["--samplers", "many"], "synthesis.samplers"),
        (["--context", "liver"], "context 'liver' is unknown"),
        (["--masks", "nowhere"], "no label maps"),
        (["--out", "gopher://x/y"], "gopher"),
        (["--set", "sampling.solver=ddim", "--set", "sampling.steps=30"], "30 steps do not divide"),
        (["--set", "sampling.steps=2000"], "2000 sampling steps"),
    ],
)
def test_impossible_synthesis_is_said_before_any_work(
    words: list[str], named: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    began = time.monotonic()
    done = diffgen("synthesize", "--bundle", str(tiny_bundle), *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert named in done.stderr
    assert not list(tmp_path.iterdir())
    assert time.monotonic() - began < 60


def test_images_that_are_not_there_are_a_line_and_status_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def incomplete(*_: object) -> None:
        raise IncompleteError("1 of 5 samples are not in out")

    monkeypatch.setattr("diffgen.cli.app", incomplete)
    done = diffgen("synthesize", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (3, "error: 1 of 5 samples are not in out\n")


def of_a_task(cause: Exception, trace: str = "ray::work()\n  File x") -> Exception:
    """What `ray.get` raises where a task or an actor's method did."""
    return RayTaskError("work", trace, cause, "w", 1, "127.0.0.1").as_instanceof_cause()


CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nGPU 0 has …")
KILLED = OutOfMemoryError("Task was killed as the node was running low on memory.")
HOST = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 80 bytes.")
FULL = OSError(28, "No space left on device", "a")
IN_A_PIPELINE = """ray::FlatMap(bad)() (pid=29421, ip=192.0.2.2)
  File "bad.py", line 5, in bad
diffgen.errors.UserError: a.svs: is damaged

The above exception was the direct cause of the following exception:

ray::FlatMap(bad)() (pid=29421, ip=192.0.2.2)
ray.exceptions.UserCodeException: UDF failed to process a data block.
Failed to apply UDF transform after 1/1 attempts (total backoff 0.0s)."""


@pytest.mark.parametrize(
    ("command", "error", "line"),
    [
        ("synthesize", CUDA, "GPU 0 has …: out of memory, lower sampling.micro_batch"),
        ("synthesize", of_a_task(CUDA), "lower sampling.micro_batch"),
        ("train mask", MemoryError(), "MemoryError: out of memory, lower training.mask.micro_batch"),
        ("train", HOST, "lower training.image.micro_batch or training.mask.micro_batch"),
        (
            "train autoencoder",
            KILLED,
            "low on memory.: out of memory, lower training.autoencoder.micro_batch",
        ),
        ("prepare a b", KILLED, "error: Task was killed as the node was running low on memory.\n"),
        ("train", UserError("the mask model failed: CUDA out of memory"), "training.mask.micro_batch"),
        ("synthesize", OutOfDiskError("(d)"), "local disk's utilization is over capacity"),
        ("evaluate", FULL, "error: [Errno 28] No space left on device: 'a'\n"),
        ("evaluate", of_a_task(FULL), "No space left on device: 'a'\n"),
        ("train", ValueError("I/O error: No space left on device (os error 28)"), "I/O error: No space left"),
        ("synthesize", ActorDiedError(), "error: The actor died unexpectedly before finishing this task."),
        ("prepare", of_a_task(UserError("a.svs: is damaged")), "error: a.svs: is damaged\n"),
        ("prepare", of_a_task(UserCodeException(), IN_A_PIPELINE), "error: a.svs: is damaged\n"),
    ],
)
def test_what_a_machine_lacks_is_one_line_and_status_2(
    command: str, error: Exception, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffgen.cli.app", mock.Mock(side_effect=error))
    done = diffgen(*command.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert line in done.stderr


@pytest.mark.parametrize("error", [AssertionError("an estimate for every owned pixel"), KeyError("key")])
def test_a_mistake_of_ours_keeps_its_traceback(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffgen.cli.app", mock.Mock(side_effect=error))
    with pytest.raises(type(error)):
        diffgen("synthesize", cwd=tmp_path)


def test_a_process_of_its_own_ends_with_status_2(tmp_path: Path) -> None:
    done = subprocess.run([str(BIN), "train"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: ")


def test_a_folder_of_something_else_is_not_touched(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    done = diffgen("synthesize", "--bundle", str(tiny_bundle), "--inline", cwd=tmp_path)
    assert done.returncode == 2
    assert "not empty" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_inline_run_says_what_it_took_and_what_is_next(tiny_bundle: Path, tmp_path: Path) -> None:
    words = ["synthesize", "--bundle", str(tiny_bundle), "--inline", "--n", "2", "--size", "32"]
    done = diffgen(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 images (32 px)" in done.stdout
    assert "next:" in done.stdout
    assert (tmp_path / "out" / "shard-000000.tar").exists()
    assert "2 of 2 images are already there" in diffgen(*words, cwd=tmp_path).stdout


def test_a_region_and_what_its_halo_takes(tiny_bundle: Path, tmp_path: Path) -> None:
    words = ["synthesize", "--bundle", str(tiny_bundle), "--n", "1", "--size", "1280x320"]
    words += ["--inline", "--region", "64,32,32,40"]
    dry = diffgen(*words, "--dry-run", cwd=tmp_path)
    assert dry.returncode == 0, dry.stderr
    assert " px of 1280x320; " in " ".join(dry.stdout.split())
    done = diffgen(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    row = pq.read_table(tmp_path / "out" / "manifest.parquet").to_pylist()[0]
    assert (row["width"], row["height"]) == (32, 40)
    beyond = diffgen(*words[:-1], "64,320,32,40", cwd=tmp_path)
    assert (beyond.returncode, beyond.stderr.count("\n")) == (2, 1)
    assert "not inside of the image of 1280x320" in beyond.stderr


def test_a_dry_run_foretells_and_writes_nothing(tiny_bundle: Path, tmp_path: Path) -> None:
    words = ["synthesize", "--bundle", str(tiny_bundle), "--n", "2", "--size", "64x48"]
    dry = diffgen(*words, "--dry-run", cwd=tmp_path)
    assert dry.returncode == 0, dry.stderr
    assert not list(tmp_path.iterdir())
    foretold = int(
        next(line.split()[1] for line in dry.stdout.splitlines() if line.split()[:1] == ["forwards"])
    )
    done = diffgen(*words, "--inline", "--save-time-map", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert foretold == sum(pq.read_table(tmp_path / "out" / "manifest.parquet")["forwards"].to_pylist())
    assert f"{foretold} (" in done.stdout
    assert len(list((tmp_path / "out" / "time-map").iterdir())) == 4
