"""The broker inside a process: it starts, serves, ends cleanly, and touches nothing else."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from broker_process import wait_until

from mbctl import (
    Admin,
    InvalidArgument,
    NotSupported,
    Publisher,
    Server,
    ServerError,
    Subscriber,
    aio,
)
from mbctl.model import Limits


def threads() -> set[str]:
    """The threads that run now, beside the tests' own."""
    names = {t.name for t in threading.enumerate()} - _OWN
    # A loop's pool of threads ends with the loop, whoever used it.
    return {name for name in names if not name.startswith("asyncio_")}


# Other tests in the same process have a loop for the calls of the asyncio face.
_OWN = {"MainThread", "loop of the tests"}


def descriptors() -> int:
    """How many files and sockets are open."""
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> Iterator[None]:
    # What the first of them opens for good, as the random numbers of the system.
    with Server():
        pass
    before = descriptors()
    yield
    assert threads() == set()
    assert descriptors() == before


# --- starting and serving -----------------------------------------------------------------------


def test_server_serves_inside_its_process_and_ends_with_its_block() -> None:
    with Server(port=0, memory=True) as server:
        host, _, port = server.address.rpartition(":")
        assert (host, int(port) > 0) == ("127.0.0.1", True)
        with Publisher(server.address) as publisher, Subscriber(server.address, "s") as subscriber:
            publisher.create_topic("orders")
            subscriber.subscribe("orders")
            publisher.send("orders", b"one")
            assert subscriber.pull("orders").payloads == [b"one"]
        with Admin(server.address) as admin:
            status = admin.status()
            assert (status.pid, status.durability) == (os.getpid(), "memory")
    assert server.address == ""


def test_servers_do_not_know_each_other() -> None:
    with Server() as one, Server() as two, Admin(one.address) as admin:
        assert one.address != two.address
        admin.create_topic("orders")
        with Admin(two.address) as other:
            assert other.topics() == []


def test_server_may_be_started_again() -> None:
    server = Server()
    for _ in range(3):
        server.start()
        with Admin(server.address) as admin:
            assert admin.topics() == []
            admin.create_topic("orders")
        server.stop()
    server.stop()


def test_limits_are_those_given() -> None:
    with Server(limits=Limits(message_bytes=100)) as server, Admin(server.address) as admin:
        assert admin.limits.message_bytes == 100


def test_messages_on_disk_are_there_again(tmp_path: Path) -> None:
    for turn in range(3):
        with Server(data=tmp_path / "data") as server, Publisher(server.address) as publisher:
            publisher.create_topic("orders")
            assert publisher.send("orders", b"x").offset == turn
            with Admin(server.address) as admin:
                assert admin.status().durability == "always"


def test_files_are_the_users_alone_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with Server(data=tmp_path / "data") as server, Publisher(server.address) as publisher:
            publisher.create_topic("orders")
            publisher.send("orders", b"x")
    finally:
        assert os.umask(old) == 0
    for path in (tmp_path / "data", *(tmp_path / "data").rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


def test_clients_that_are_left_open_do_not_hold_the_end_up() -> None:
    with Server() as server:
        publisher = Publisher(server.address)
        begin = time.monotonic()
    assert time.monotonic() - begin < 2
    publisher.close()


# --- what keeps it from starting ----------------------------------------------------------------


def test_address_that_is_taken_is_told() -> None:
    with Server() as server:
        port = int(server.address.rpartition(":")[2])
        with pytest.raises(ServerError, match=f"cannot listen on 127.0.0.1:{port}"):
            Server(port=port).start()


def test_data_directory_in_use_is_told(tmp_path: Path) -> None:
    with Server(data=tmp_path), pytest.raises(ServerError, match="in use"):
        Server(data=str(tmp_path)).start()


def test_server_that_runs_is_not_started_again() -> None:
    with Server() as server:
        with pytest.raises(ServerError, match="runs already"):
            server.start()
        with Admin(server.address) as admin:
            assert admin.topics() == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"port": -1}, InvalidArgument),
        ({"memory": True, "data": "somewhere"}, InvalidArgument),
        ({"sync": "always"}, InvalidArgument),
        ({"memory": False, "sync": "sometimes"}, NotSupported),
        ({"max_bytes": 5}, InvalidArgument),
        ({"data": 5}, InvalidArgument),
        ({"host": "0.0.0.0"}, InvalidArgument),
    ],
)
def test_options_without_sense_are_refused(options: dict[str, Any], error: type) -> None:
    with pytest.raises(error):
        Server(**options)


# --- what it leaves alone -----------------------------------------------------------------------


def test_signals_umask_and_logging_are_as_they_were() -> None:
    def state() -> object:
        umask = os.umask(0o022)
        os.umask(umask)
        loggers = [logging.getLogger(name) for name in (None, "mbctl", "mbctl.server", "asyncio")]
        return (
            umask,
            [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
            [(log.level, log.handlers, log.propagate) for log in loggers],
            threading.excepthook,
            sys.excepthook,
        )

    before = state()
    with Server():
        assert state() == before
    assert state() == before


def test_process_that_forgets_its_server_ends_in_silence() -> None:
    code = "import mbctl; server = mbctl.Server(); server.start(); print(server.address)"
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=20
    )
    assert (ended.returncode, ended.stderr) == (0, "")


# --- asyncio ------------------------------------------------------------------------------------


def test_server_serves_the_loop_that_it_was_started_from() -> None:
    async def main() -> None:
        async with Server() as server, aio.Publisher(server.address) as publisher:
            await publisher.create_topic("orders")
            assert (await publisher.send("orders", b"x")).offset == 0
            # What blocks this loop does not block the server.
            with Admin(server.address) as admin:
                assert admin.topic("orders").messages == 1

    asyncio.run(main())


def test_loop_goes_on_while_a_server_starts_and_ends() -> None:
    async def main() -> None:
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(turn())
        async with Server():
            assert turns
            so_far = turns
        assert turns > so_far
        task.cancel()

    asyncio.run(main())


def test_cancelled_start_and_cancelled_end_leave_no_server() -> None:
    async def main() -> None:
        server = Server()
        for _ in range(5):
            task = asyncio.create_task(server.__aenter__())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert server.address == ""
        await server.__aenter__()
        task = asyncio.create_task(server.__aexit__(None, None, None))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    wait_until(lambda: threads() == set())


def test_start_that_fails_is_told_to_the_coroutine() -> None:
    async def main() -> None:
        async with Server() as server:
            with pytest.raises(ServerError, match="cannot listen"):
                await Server(port=int(server.address.rpartition(":")[2])).__aenter__()

    asyncio.run(main())


# --- a disk that fails --------------------------------------------------------------------------

# In a process of its own, as a journal whose disk has failed leaves its threads behind.
_WITH_FAILING_DISK = """
import errno, os, sys
from mbctl import OutcomeUnknown, Publisher, Server, StorageFailed, Subscriber
from mbctl import files
from mbctl.files import Disk

class FailingDisk(Disk):
    fails = False

    def fdatasync(self, descriptor):
        if FailingDisk.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().fdatasync(descriptor)

files.Disk = FailingDisk
server = Server(data=sys.argv[1])
server.start()
with Publisher(server.address, timeout=0.5) as publisher:
    publisher.create_topic("orders")
    publisher.send("orders", b"kept")
    FailingDisk.fails = True
    try:
        publisher.send("orders", b"lost, maybe")
    except OutcomeUnknown:
        print("unknown")
try:
    server.stop()
except StorageFailed:
    print("failed")
FailingDisk.fails = False
with Server(data=sys.argv[1]) as again, Subscriber(again.address) as subscriber:
    subscriber.subscribe("orders", start="earliest")
    print(subscriber.pull("orders").payloads[0])
"""


def test_failing_disk_ends_the_server_and_not_the_process(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", _WITH_FAILING_DISK, str(tmp_path / "data")],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (ended.returncode, ended.stdout.split()) == (0, ["unknown", "failed", "b'kept'"])
    assert "Traceback" not in ended.stderr


# --- forks --------------------------------------------------------------------------------------

# In a process of its own, for the sake of its descriptors.
_FORKED = """
import os, socket, sys
from mbctl import ConnectionLost, Publisher, Server

def sockets_of(port):
    count = 0
    for descriptor in os.listdir("/dev/fd"):
        try:
            sock = socket.socket(fileno=int(descriptor))
        except OSError:
            continue
        if sock.family == socket.AF_INET:
            count += sock.getsockname()[1] == port
        sock.detach()
    return count

data = sys.argv[1] if sys.argv[1:] else None
server = Server(data=data)
server.start()
address, port = server.address, int(server.address.rpartition(":")[2])
publisher = Publisher(address)
publisher.create_topic("orders")
listening, let_go = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    # Here nothing of it runs and nothing of it is open; it serves this process as any other.
    assert sockets_of(port) == 0
    files = [os.path.realpath(f"/dev/fd/{fd}") for fd in os.listdir("/dev/fd")]
    assert data is None or not [file for file in files if file.startswith(data)]
    assert server.address == address
    assert publisher.send("orders", b"child").offset == 0
    server.stop()
    publisher.close()
    os.write(listening[1], b"!")
    os.read(let_go[0], 1)
    os._exit(0)
os.read(listening[0], 1)
# It has not been stopped by the child.
assert publisher.send("orders", b"parent").offset == 1
server.stop()
try:
    Publisher(address, timeout=0.05)
except ConnectionLost as error:
    assert "refused" in str(error), error
# The child lives, and holds neither the port nor the lock of the directory.
with Server(data=data, port=port) as again, Publisher(again.address) as other:
    if data:
        print(other.send("orders", b"again").offset)
os.write(let_go[1], b"!")
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize("loop", ["uvloop", pytest.param("asyncio", marks=pytest.mark.slow)])
@pytest.mark.parametrize("where", ["memory", "disk"])
def test_server_stays_with_its_process_when_that_forks(
    where: str, loop: str, tmp_path: Path
) -> None:
    code = _FORKED
    if loop == "asyncio":
        code = "import sys; sys.modules['uvloop'] = None\n" + code
    ended = subprocess.run(
        [sys.executable, "-c", code, *([str(tmp_path / "data")] if where == "disk" else [])],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == (["2"] if where == "disk" else [])
