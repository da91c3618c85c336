"""What `--dry-run` says of an object store is what a run asks of a server of S3, request by request."""

import logging
import re
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgen.storage import Folder
from diffgen.synthesis.store_requests import RUN, SHARD, Requests, store_requests
from tests.synthesis.helpers import run

Count = Callable[[], Requests]
needs_server = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("moto", "flask", "flask_cors")),
    reason="no S3 server: pip install 'moto[s3]' flask flask-cors",
)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[Count]:
    """A server with an empty bucket; what is given counts the requests since it was last asked.

    Renewals of the folder's lock are left out: they follow the clock.
    """
    from moto.server import ThreadedMotoServer

    seen: list[tuple[str, str]] = []

    class Seen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if found := re.search(r"(GET|HEAD|PUT|POST|DELETE) (/\S*) HTTP", record.getMessage()):
                seen.append((found[1], found[2]))

    monkeypatch.setattr("diffgen.lock.RENEW_S", 3600.0)
    monkeypatch.setattr("diffgen.lock.SETTLE_S", 0.0)
    log, handler = logging.getLogger("werkzeug"), Seen()
    monkeypatch.setattr(log, "propagate", False)
    monkeypatch.setattr(log, "level", logging.INFO)
    log.addHandler(handler)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=True)
    server.start()
    host, port = server.get_host_and_port()
    names = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    names |= {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "none"}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/bucket", method="PUT")).close()
    seen.clear()

    def count() -> Requests:
        listed = sum("list-type=" in path for _, path in seen)
        writes = sum(method in {"PUT", "POST"} for method, _ in seen) + listed
        reads = sum(method in {"GET", "HEAD"} for method, _ in seen) - listed
        seen.clear()
        return Requests(writes, reads)

    yield count
    server.stop()
    log.removeHandler(handler)


@needs_server
@pytest.mark.parametrize(("n", "per_shard"), [(1, 1), (8, 1), (8, 3)])
def test_a_run_asks_what_was_foretold(requests: Count, tiny_bundle: Path, n: int, per_shard: int) -> None:
    """One shard or many, more images than the preview shows, and a last shard that is not full."""
    run(tiny_bundle, f"s3://bucket/out-{n}-{per_shard}", n=n, images_per_shard=per_shard)
    assert requests() == store_requests(n, per_shard, sample_bytes=1e4)


@needs_server
@pytest.mark.parametrize("megabytes", [1, 10, 11, 25])
def test_a_large_shard_goes_up_in_parts(requests: Count, megabytes: int) -> None:
    """Beside what a small one takes; and the first ones are read back for the preview in pieces."""
    size = megabytes << 20
    Folder("s3://bucket/out").write("shard.tar", bytes(size))
    small, told = store_requests(1, 1, 1.0), store_requests(1, 1, size)
    assert requests().writes == 1 + told.writes - small.writes
    Folder("s3://bucket/out").read("shard.tar")
    assert requests().reads == 2 + told.reads - small.reads


@given(st.integers(1, 5000), st.integers(1, 64), st.floats(1.0, 1e8))
def test_more_samples_never_ask_less(samples: int, per_shard: int, sample_bytes: float) -> None:
    told, more = (store_requests(n, per_shard, sample_bytes) for n in (samples, samples + 1))
    assert more.writes >= told.writes >= RUN.writes + SHARD.writes
    assert more.reads >= told.reads
