"""A site as an operator has it: a store, a Ray cluster of several hosts, and a host that submits the jobs."""

import contextlib
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from diffgen.storage import Folder
from tests.cluster.hosts import HOME, PYTHON, Host, Lan

ROOT = Path(__file__).resolve().parent.parent.parent
CODE = ("diffgen", "conf", "jobs", "pyproject.toml", "README.md", "LICENSE", "constraints.txt")
"""What the host that submits jobs holds."""
UNUSED = ("bundles",)
"""What no test asks for, and each job would send to each node anew: nine tenths of the code."""
IMAGE = "/home/ray/image"
"""Where a node has diffgen: what `pip install` would have put into the image."""
RAY_PORT, DASHBOARD, S3, PROXY = 6379, 8265, 5000, 9000
BUCKET = "bucket"
RAY = str(Path(PYTHON).with_name("ray"))
TUNED = {
    "RAY_worker_niceness": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""A host that is gone is missed after some ten seconds, not half a minute."""


MANY: dict[str, Any] = {"n": 40, "lease": 4, "samplers": 3, "in_flight": 12, "lease_timeout_s": 20.0}
"""Of a synthesis that is struck."""


class Store:
    """An S3 server behind a proxy, on a host of its own."""

    def __init__(self, lan: Lan) -> None:
        self.host = lan.host("store")
        self.host.start([PYTHON, "-m", "moto.server", "-H", "0.0.0.0", "-p", str(S3)], log="/tmp/moto.log")
        self.host.put(Path(__file__).with_name("proxy.py"), f"{HOME}/proxy.py")
        self.host.start([PYTHON, "proxy.py", str(PROXY), f"127.0.0.1:{S3}"], log="/tmp/proxy.log")
        for port in (S3, PROXY):
            self.host.listens(port)
        self._ask("PUT", f"/{BUCKET}")

    @cached_property
    def environment(self) -> dict[str, str]:
        """Where it is, and how to get in."""
        return {
            "AWS_ENDPOINT_URL": f"http://{self.host.address}:{PROXY}",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def _ask(self, method: str, path: str, data: bytes | None = None) -> bytes:
        url = f"http://{self.host.address}:{PROXY}{path}"
        with urllib.request.urlopen(urllib.request.Request(url, data, method=method)) as answer:
            told: bytes = answer.read()
        return told

    @contextlib.contextmanager
    def wrong(self, **faults: float) -> Iterator[None]:
        """While it is entered the store has these faults (`proxy.Faults`)."""
        self._ask("POST", "/-/faults", json.dumps(faults).encode())
        try:
            yield
        finally:
            self._ask("POST", "/-/faults", b"{}")

    def log(self) -> list[dict[str, Any]]:
        """What was asked since the last time."""
        told: list[dict[str, Any]] = json.loads(self._ask("GET", "/-/log"))
        return told

    def folder(self, name: str = "") -> Folder:
        """As this machine sees it, past the proxy."""
        server = f"{self.host.address}:{S3}".replace(":", "%3A")
        keys = "nobody:none@"
        where = f"{BUCKET}/{name}".rstrip("/")
        return Folder(f"s3://{keys}{where}?endpoint_override={server}&scheme=http&region=us-east-1")

    def put(self, source: Path, name: str) -> str:
        """Copy a folder there; its URL."""
        self.folder().push(source, name)
        return f"s3://{BUCKET}/{name}"


@dataclass
class Job:
    """A job that was submitted."""

    site: "Site"
    name: str
    process: subprocess.Popen[str]
    log: str

    def said(self) -> str:
        return self.site.operator.path(self.log).read_text(errors="replace")

    def until(self, what: str, happens: Callable[[], Any], patience: float = 300) -> Any:
        """Wait until something happens while it runs; what came of it."""
        ends = time.monotonic() + patience
        while not (got := happens()):
            assert self.process.poll() is None, f"{self.name} ended before {what}:\n{self.said()}"
            assert time.monotonic() < ends, f"{self.name}: no {what}:\n{self.said()}"
            time.sleep(0.05)
        return got

    def ends(self, well: bool = True, patience: float = 400) -> str:
        """Wait for its end; what it said."""
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"{self.name} has not ended:\n{self.said()}") from None
        assert (self.process.returncode == 0) == well, self.said()
        return self.said()


class Site:
    """A store, a head without CPUs to give, nodes with one each, and a host that holds only the code."""

    def __init__(self, lan: Lan, nodes: int = 3) -> None:
        self.lan, self.jobs = lan, 0
        self.store = Store(lan)
        self.nodes = [f"node{number}" for number in range(1, nodes + 1)]
        self.operator = lan.host("operator")
        for name in CODE:
            self.operator.put(ROOT / name, f"{HOME}/code/{name}", without=UNUSED)
        self.up("head")
        for name in self.nodes:
            self.up(name)
        self.wait("head", *self.nodes)

    def __getitem__(self, name: str) -> Host:
        return self.lan.hosts[name]

    def up(
        self, name: str, disk: str = "2g", change: Callable[[Host], None] = lambda _: None, **more: str
    ) -> Host:
        """A host with diffgen and Ray on it, new if it is not there, started as an operator would."""
        host = self.lan.hosts.get(name)
        if host is None:
            host = self.lan.host(name, disk, **self.store.environment, **TUNED, PYTHONPATH=IMAGE, **more)
            for part in ("diffgen", "conf"):
                host.put(ROOT / part, f"{IMAGE}/{part}", without=UNUSED)
            change(host)
        if name == "head":
            where = ["--head", f"--port={RAY_PORT}", "--dashboard-host=0.0.0.0", "--num-cpus=0"]
        else:
            where = [f"--address={self['head'].address}:{RAY_PORT}", "--num-cpus=1"]
        memory = f"--object-store-memory={128 * 2**20}"
        for last in (False, False, True):  # Ray waits half a minute for a raylet: too short on a busy machine
            line = [RAY, "start", *where, f"--node-ip-address={host.address}", memory]
            if "Ray runtime started" in host.run(line, 240, status=0 if last else None):
                break
            host.reboot()
        if name == "head":
            host.listens(DASHBOARD, 120)
        return host

    def again(self, name: str) -> Host:
        """A node, or the head, that was lost, started anew on its host."""
        if name in self.lan.hosts:
            self[name].reboot()
        return self.up(name)

    def alive(self) -> set[str]:
        """Addresses of the nodes that the head knows to be alive."""
        url = f"http://{self['head'].address}:{DASHBOARD}/api/v0/nodes"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                nodes = json.load(answer)["data"]["result"]["result"]
        except (OSError, KeyError, TypeError):  # it is about to come up
            return set()
        return {node["node_ip"] for node in nodes if node["state"] == "ALIVE"}

    def wait(self, *names: str, patience: float = 240) -> None:
        """Until these hosts are alive as nodes, and no others."""
        wanted, ends = {self[name].address for name in names}, time.monotonic() + patience
        while (there := self.alive()) != wanted:
            assert time.monotonic() < ends, f"{sorted(there)} are alive instead of {sorted(wanted)}"
            time.sleep(0.3)

    def whole(self) -> None:
        """Mend what a test has left: all cables in, all hosts awake, each with its node."""
        for name in ("head", *self.nodes):
            if name in self.lan.hosts:
                self[name].restore()
                self[name].resume()
        if "head" not in self.lan.hosts or self["head"].address not in self.alive():
            self.again("head")
            lost = self.nodes
        else:
            there = self.alive()
            lost = [n for n in self.nodes if n not in self.lan.hosts or self[n].address not in there]
        for name in lost:
            self.again(name)
        self.wait("head", *self.nodes)

    @contextlib.contextmanager
    def another(self, name: str, change: Callable[[Host], None]) -> Iterator[Host]:
        """A new host in place of a node, changed before Ray starts there; it is gone in the end."""
        if name in self.lan.hosts:
            self[name].kill()
        host = self.up(name, change=change)
        try:
            self.wait("head", *self.nodes)
            yield host
        finally:
            host.kill()

    def submit(self, *line: str, working_dir: bool = True) -> Job:
        """A job, as jobs/README.md says it."""
        self.jobs += 1
        name = f"job-{self.jobs}"
        where = ["--working-dir", ".", "--runtime-env", "jobs/runtime-env.yaml"] if working_dir else []
        process = self.operator.start(
            [RAY, "job", "submit", *where, "--submission-id", name, "--", *line],
            log=f"/tmp/{name}.log",
            cwd=f"{HOME}/code",
            RAY_API_SERVER_ADDRESS=f"http://{self['head'].address}:{DASHBOARD}",
        )
        return Job(self, name, process, f"/tmp/{name}.log")

    def settings(self, name: str, text: str) -> str:
        """A file of settings that goes with the code; its name there."""
        self.operator.path(f"{HOME}/code/{name}").write_text(text)
        return name

    def tell_tale(self, place: Path) -> None:
        """Keep the logs of all hosts, for who looks into a failure."""
        for name, host in self.lan.hosts.items():
            with contextlib.suppress(OSError, shutil.Error):
                shutil.copytree(
                    host.path("/tmp"), place / name, symlinks=True, ignore=shutil.ignore_patterns("sockets")
                )
