"""The hosts themselves: what the other tests stand on."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts import PYTHON, Host, Lan, ip, missing, sweep

pytestmark = pytest.mark.cluster
REACH = "import socket, sys; socket.create_connection((sys.argv[1], 80), 2)"
SERVE = "import socket; s = socket.create_server(('', 80))\nwhile True: s.accept()"


@pytest.fixture
def two(_alone: None) -> Iterator[tuple[Host, Host]]:
    with Lan() as lan:
        yield lan.host("one"), lan.host("two", disk="1m")


@pytest.fixture
def _alone() -> None:
    if reason := missing():
        pytest.skip(reason)


def test_each_has_files_processes_and_a_name_of_its_own(two: tuple[Host, Host], tmp_path: Path) -> None:
    one, two_ = two
    for host in two:
        assert host.run(["hostname"]).strip() == host.name
        assert (
            host.run(["sh", "-c", "ls /tmp /home/ray; test ! -e " + str(tmp_path)]).strip()
            == "/home/ray:\n\n/tmp:"
        )
    one.path("/tmp/mine").write_text("1")
    assert one.run(["cat", "/tmp/mine"]) == "1"
    assert not two_.path("/tmp/mine").exists()
    two_.run(["sh", "-c", "head -c 2000000 /dev/zero > /tmp/large"], status=1)
    one.run(["touch", "/usr/x"], status=1)
    assert len(one.run(["ps", "-e", "-o", "comm="]).split()) < 5


def test_a_cable_a_pause_and_the_power(two: tuple[Host, Host]) -> None:
    one, two_ = two
    server = two_.start([PYTHON, "-c", SERVE])
    two_.listens(80)
    reach = [PYTHON, "-c", REACH, two_.address]
    one.run(reach)
    two_.cut()
    one.run(reach, status=1)
    two_.restore()
    two_.listens(80)
    two_.pause()
    states = [Path(f"/proc/{pid}/stat").read_text().split()[2] for pid in two_.pids()]
    assert states
    assert set(states) == {"T"}
    two_.resume()
    two_.reboot()
    assert server.wait(5)
    two_.run(["true"])
    two_.kill()
    one.run(reach, status=1)


@pytest.mark.usefixtures("_alone")
def test_networks_of_one_process_do_not_meet() -> None:
    with Lan() as lan:
        kept = lan.host("one")
        with Lan() as other:
            there = other.host("one")
            assert there.address != kept.address
            assert there.run(["hostname"]).strip() == "one"
        assert kept.run(["hostname"]).strip() == "one", "it outlives the other"


@pytest.mark.usefixtures("_alone")
def test_what_a_killed_run_leaves_is_swept() -> None:
    code = "from tests.cluster.hosts import Lan; Lan().__enter__().host('left'); print('up'); input()"
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "up\n"
        name = f"dgc{killed.pid}x0"
        assert f"{name}-left" in ip("netns", "list")
        sweep()
        assert f"{name}-left" in ip("netns", "list"), "its owner is alive"
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
    sweep()
    assert name not in ip("netns", "list")
    assert name not in ip("link", "show")
