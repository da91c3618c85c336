"""A run on S3: a local server of the same interface, a real training, stopped and resumed."""

import shutil
import signal
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.storage import Folder
from tests.faults.training_helpers import EVERY, STEPS, Run, data

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("moto", "flask", "flask_cors")),
    reason="no S3 server: pip install 'moto[s3]' flask flask-cors",
)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of an empty bucket; the server is named by the environment, which the commands inherit."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/bucket", method="PUT")).close()
    yield "s3://bucket"
    server.stop()


def test_a_folder_goes_to_s3_and_comes_back(bucket: str, tmp_path: Path) -> None:
    run = Folder(f"{bucket}/runs/one")
    assert run.local is None
    assert run.read_text("run.yaml") is None
    run.write_text("run.yaml", "µ")
    assert run.read_text("run.yaml") == "µ"
    built = tmp_path / "built"
    (built / "unet").mkdir(parents=True)
    (built / "unet" / "weights").write_bytes(b"1" * 20_000_000)
    (built / bundle.INDEX).write_text("{}")
    (built / "empty").touch()
    for _ in range(2):
        run.push(built, "bundle")
    assert run.exists("bundle")
    assert not run.exists("bun")
    pulled = run.pull("bundle", tmp_path / "pulled")
    for path in built.rglob("*"):
        if path.is_file():
            assert (pulled / path.relative_to(built)).read_bytes() == path.read_bytes()


@pytest.mark.slow
@pytest.mark.faults
def test_a_run_lives_on_s3(bucket: str, labels: Labels, tmp_path: Path) -> None:
    """Stopped between two checkpoints, then started again on what may be another machine."""
    run = Run(tmp_path / "here", data(tmp_path / "data", labels), runs=f"{bucket}/runs")
    with run.start() as driver:
        last = driver.reach(EVERY)
        driver.process.send_signal(signal.SIGTERM)
        driver.ends(143)
    saved = run.registered()
    assert last < saved < STEPS
    assert not (tmp_path / "here" / "run").exists()
    shutil.rmtree(tmp_path / "here" / "curves", ignore_errors=True)

    with run.start() as driver:
        said = driver.ends()
    assert driver.begins() == [saved]
    assert f"bundle: {bucket}/runs/run/bundle" in said
    assert run.registered() == STEPS
    assert set(run.curve()) == set(range(1, STEPS + 1)), "the curves of both starts"
    for name in ("run.yaml", "settings.yaml", "base/model_index.json", f"train/mask/step-{STEPS:07d}"):
        assert run.place.exists(name), name
    made = bundle.load(run.place.pull("bundle", tmp_path / "bundle"))
    assert made.mask_unet is not None
