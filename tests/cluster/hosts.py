"""Hosts on one machine: each has a network, files, processes and a name of its own. Linux, root, iproute2.

A host is a network namespace on a bridge, with namespaces of mounts, processes, names and shared memory. Its
root is an empty tmpfs in which system and Python are bound read-only: no path of a host is another's, and
none is this machine's. Its files are seen from here by `Host.path`, through /proc.

All names begin with the pid of the process that made them, so `sweep` finds what a killed one has left.
"""

import contextlib
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PREFIX = "dgc"
NAMED = rf"({PREFIX}(\d+)x\d+)"
"""A network, by the process that it belongs to and how many that one had before."""
COUNT = itertools.count()
TOOLS = ("ip", "unshare", "nsenter", "pivot_root", "mount")
HOME = "/home/ray"
PYTHON = str(Path(sys.prefix).resolve() / "bin" / "python")

SETUP = r"""
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755,size=4g none "$NEW"
cd "$NEW"
mkdir -p proc sys dev/shm tmp run var/tmp home/ray etc root old
cp -a /bin /lib /sbin . ; [ -e /lib64 ] && cp -a /lib64 .
for place in /usr /etc $SEEN; do
  mkdir -p ".$place"; mount --rbind "$place" ".$place"; mount -o remount,ro,bind ".$place"
done
mount -t tmpfs -o size="$DISK" none tmp; chmod 1777 tmp
mount -t tmpfs -o size=2g none dev/shm
mount -t proc proc proc
mount -t sysfs sysfs sys
for one in null zero full random urandom tty; do touch dev/$one; mount --bind /dev/$one dev/$one; done
ln -s /proc/self/fd dev/fd; ln -s /proc/self/fd/0 dev/stdin; ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
for file in hosts resolv.conf; do mount --bind "$NAMES/$file" etc/$file; done
hostname "$NAME"
pivot_root . old
umount -l old; rmdir old
exec bash -c 'trap "" INT TERM; echo up > /run/up; while :; do sleep 1000 & wait; done'
"""
"""Becomes the first process of a host, which buries all that lose their parents."""


def missing() -> str | None:
    """Why there can be no hosts here, in a line; None if there can."""
    if not sys.platform.startswith("linux"):
        return "hosts are namespaces of Linux"
    if os.geteuid():
        return "hosts need root: network namespaces, mounts"
    if absent := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"not on the PATH: {', '.join(absent)} (Debian: iproute2, util-linux)"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "--uts", "--ipc", "true"],
        capture_output=True,
        check=False,
    )
    return None if tried.returncode == 0 else f"no namespaces here: {tried.stderr.decode().strip()}"


def ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr.strip()}"
    return done.stdout


def sweep(network: str | None = None) -> None:
    """End the processes of a network's hosts, and remove it; or those of processes that are no more."""

    def stale(bridge: str, owner: str) -> bool:
        return bridge == network or (network is None and not _alive(int(owner)))

    for line in ip("netns", "list").split("\n"):
        found = re.fullmatch(NAMED + r"-\w+", line.partition(" ")[0])
        if found and stale(found[1], found[2]):
            for pid in ip("netns", "pids", found[0]).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            ip("netns", "delete", found[0])
    for name, bridge, owner in re.findall(rf"\d+: ({NAMED}(?:v\d+)?)[:@]", ip("link", "show")):
        if stale(bridge, owner):
            with contextlib.suppress(AssertionError):  # one end of a cable goes with the other
                ip("link", "delete", name)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _is_idle(pid: int) -> bool:
    """Whether it is what a host's first process waits for, or none any more."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip() in {"sleep", "unshare"}
    return True


class Lan:
    """A bridge, on which this machine has an address too; a context that leaves nothing behind."""

    def __init__(self) -> None:
        number = next(COUNT)
        self.bridge, self.hosts = f"{PREFIX}{os.getpid()}x{number}", dict[str, Host]()
        self.subnet = f"10.213.{(os.getpid() + 83 * number) % 250}"
        self.made = 0

    def __enter__(self) -> "Lan":
        sweep()
        self.names = Path(tempfile.mkdtemp(prefix=PREFIX))
        (self.names / "resolv.conf").write_text("nameserver 127.0.0.1\n")  # refuses at once
        (self.names / "hosts").write_text("127.0.0.1 localhost\n")
        ip("link", "add", self.bridge, "type", "bridge")
        ip("addr", "add", f"{self.subnet}.254/24", "dev", self.bridge)
        ip("link", "set", self.bridge, "up")
        return self

    def __exit__(self, *_: object) -> None:
        for host in list(self.hosts.values()):
            host.kill()
        sweep(self.bridge)
        shutil.rmtree(self.names, ignore_errors=True)

    def host(self, name: str, disk: str = "2g", **environment: str) -> "Host":
        """A new host that is up; `disk`: size of its /tmp. One of that name is gone, with all that it had."""
        if name in self.hosts:
            self.hosts[name].kill()
        self.made += 1
        host = self.hosts[name] = Host(self, name, self.made, disk, environment)
        lines = ["127.0.0.1 localhost", *(f"{one.address} {one.name}" for one in self.hosts.values())]
        (self.names / "hosts").write_text("\n".join(lines) + "\n")  # the same file: hosts see it
        return host


class Host:
    """A machine of its own."""

    def __init__(self, lan: Lan, name: str, number: int, disk: str, environment: Mapping[str, str]) -> None:
        self.lan, self.name, self.number = lan, name, number
        self.netns, self.link = f"{lan.bridge}-{name}", f"{lan.bridge}v{number}"
        self.address = f"{lan.subnet}.{number}"
        self.environment = {
            "PATH": f"{Path(PYTHON).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": HOME,
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            **environment,
        }
        ip("netns", "add", self.netns)
        ip("link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.netns)
        ip("link", "set", self.link, "master", lan.bridge, "up")
        for words in (
            ["addr", "add", f"{self.address}/24", "dev", "eth0"],
            ["link", "set", "lo", "up"],
            ["link", "set", "eth0", "up"],
        ):
            ip("-n", self.netns, *words)
        seen = dict.fromkeys((str(Path(sys.base_prefix).resolve()), str(Path(sys.prefix).resolve())))
        own = {"NEW": tempfile.mkdtemp(dir=lan.names), "NAMES": str(lan.names), "NAME": name}
        log = (lan.names / f"{name}.log").open("wb")  # it complains when its child is killed
        self._outer = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.netns}", "unshare", "--mount", "--uts", "--ipc", "--pid",
             "--fork", "--kill-child", "bash", "-c", SETUP],
            env=os.environ | own | {"SEEN": " ".join(seen), "DISK": disk},
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        log.close()
        self.pid = self._first()

    def _first(self) -> int:
        """Pid, as this machine has it, of the host's first process, once the host is up."""
        ends = time.monotonic() + 20
        while time.monotonic() < ends:
            if self._outer.poll() is not None:
                break
            with contextlib.suppress(OSError, LookupError):
                children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text()
                pid = int(children.split()[0])
                if Path(f"/proc/{pid}/root/run/up").exists():
                    return pid
            time.sleep(0.02)
        said = (self.lan.names / f"{self.name}.log").read_text()
        raise AssertionError(f"{self.name} has not come up: {said}")

    def path(self, place: str) -> Path:
        """A path of the host, as this machine reaches it."""
        return Path(f"/proc/{self.pid}/root") / place.lstrip("/")

    def put(self, source: Path, place: str, without: Sequence[str] = ()) -> None:
        """Copy a file, or a folder but for files and folders of some names, of this machine there."""
        self.path(place).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, self.path(place), ignore=shutil.ignore_patterns("__pycache__", *without))
        else:
            shutil.copy(source, self.path(place))

    def start(
        self, line: Sequence[str], log: str | None = None, cwd: str = HOME, **environment: str
    ) -> subprocess.Popen[str]:
        """A process there; what it says goes to a file of the host, or to pipes."""
        words = ["nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-n", "-p", f"--wdns={cwd}", "--", *line]
        with contextlib.ExitStack() as stack:
            sink: Any = subprocess.PIPE
            if log is not None:
                sink = stack.enter_context(self.path(log).open("ab"))
            return subprocess.Popen(
                words, env=self.environment | environment, stdin=subprocess.DEVNULL, stdout=sink,
                stderr=subprocess.STDOUT if log is not None else subprocess.PIPE, text=True,
            )  # fmt: skip

    def run(
        self, line: Sequence[str], timeout: float = 120, status: int | None = 0, **environment: str
    ) -> str:
        """What a command there says, on both ways; its exit status is asserted unless that is None."""
        with self.start(line, **environment) as process:
            try:
                out, error = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                out, error = process.communicate()
                raise AssertionError(f"{self.name}: {line} has not ended\n{out}\n{error}") from None
        assert status is None or process.returncode == status, f"{self.name}: {line}\n{out}\n{error}"
        return out + error

    def cut(self) -> None:
        """Pull its network cable."""
        ip("link", "set", self.link, "down")

    def restore(self) -> None:
        ip("link", "set", self.link, "up")

    def pids(self) -> list[int]:
        """All its processes but the first ones, as this machine numbers them."""
        first = {self.pid, self._outer.pid}
        return [pid for pid in map(int, ip("netns", "pids", self.netns).split()) if pid not in first]

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def reboot(self) -> None:
        """End all that runs there but the host; its files stay."""
        ends = time.monotonic() + 10
        while (busy := [pid for pid in self.pids() if not _is_idle(pid)]) and time.monotonic() < ends:
            for pid in busy:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def kill(self) -> None:
        """Take the power away: all its processes and files are gone at once."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._outer.wait(20)
        with contextlib.suppress(AssertionError):
            ip("netns", "delete", self.netns)
        with contextlib.suppress(AssertionError):  # with the last process that holds its other end it goes
            ip("link", "delete", self.link)
        if self.lan.hosts.get(self.name) is self:
            del self.lan.hosts[self.name]

    def listens(self, port: int, patience: float = 30) -> None:
        """Wait until something does."""
        ends = time.monotonic() + patience
        while time.monotonic() < ends:
            with contextlib.suppress(OSError):
                socket.create_connection((self.address, port), 1).close()
                return
            time.sleep(0.1)
        raise AssertionError(f"{self.name}: nothing listens at {port}")


@contextlib.contextmanager
def lan() -> Iterator[Lan]:
    with Lan() as made:
        yield made
