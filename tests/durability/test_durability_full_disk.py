"""A disk that is full: sends are refused, the rest goes on, and all is well when space is back."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from crashes.processes import Server, wait_until
from durability_parts import Sending, StartServer

from mbctl import Admin, DiskFull, Publisher, Subscriber
from mbctl.model import KIB, MIB

pytestmark = pytest.mark.slow

# How soon sends work again once there is space.
RESUME_S = 5.0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode != 0:
        reason = f"a small file system cannot be mounted here: {done.stderr.strip()}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def server(small_disk: Path, start_server: StartServer) -> Server:
    """A server whose bound is the disk itself."""
    return start_server(data=str(small_disk / "data"), segment_bytes=MIB, max_bytes=1024 * MIB)


def fill_up(server: Server) -> Sending:
    """Send until the disk is full for good."""
    sending = Sending(server.address, size=20_000, timeout=10.0)
    wait_until(lambda: len(sending.refused) > 50 or sending.end)
    sending.stop()
    assert sending.end is None
    assert {error.code for error in sending.refused.values()} == {DiskFull.__name__}
    # Most of the disk holds messages, however it is divided.
    assert len(sending.stored) * 20_000 > 24 * MIB
    return sending


def read_all(address: str, name: str) -> int:
    """Pull and acknowledge everything; how many messages."""
    count = 0
    with Subscriber(address, name) as subscriber:
        while batch := subscriber.pull("t", wait=0, auto_ack=False):
            count += batch.ack()
    return count


def wait_for_room(server: Server) -> float:
    """Seconds until a send works."""
    begin = time.monotonic()
    with Publisher(server.address) as publisher:
        wait_until(lambda: _works(lambda: publisher.send("t", bytes(20_000))))
    return time.monotonic() - begin


def _works(act: Callable[[], object]) -> bool:
    """Whether there is room for what ``act`` does."""
    try:
        act()
    except DiskFull:
        return False
    return True


def test_full_disk_refuses_sends_and_frees_itself_when_all_is_read(
    server: Server, small_disk: Path, start_server: StartServer
) -> None:
    with Publisher(server.address) as publisher, Subscriber(server.address, "a") as subscriber:
        publisher.create_topic("t")
        subscriber.subscribe("t")
    sending = fill_up(server)
    with Admin(server.address) as admin:
        assert admin.topic("t").next_offset == len(sending.stored)
        assert read_all(server.address, "a") == len(sending.stored)
        assert wait_for_room(server) < RESUME_S
        assert admin.topic("t").next_offset == len(sending.stored) + 1
    server.kill()
    server = start_server(data=str(small_disk / "data"), segment_bytes=MIB, max_bytes=1024 * MIB)
    with Admin(server.address) as admin:
        assert admin.subscription("t", "a").unread == 1
    assert read_all(server.address, "a") == 1


def test_full_disk_keeps_all_that_was_acknowledged_through_a_kill(
    server: Server, small_disk: Path, start_server: StartServer
) -> None:
    sending = fill_up(server)
    server.kill()
    # What fills the disk is there, and more than once it can be started and killed again.
    for _ in range(3):
        server = start_server(
            data=str(small_disk / "data"), segment_bytes=MIB, max_bytes=1024 * MIB
        )
        sending.check(server.address)
        server.kill()
    server = start_server(data=str(small_disk / "data"), segment_bytes=MIB, max_bytes=1024 * MIB)
    with Admin(server.address) as admin:
        admin.delete_topic("t")
        begin = time.monotonic()
        wait_until(lambda: _works(lambda: admin.create_topic("t")))
    wait_for_room(server)
    assert time.monotonic() - begin < RESUME_S
    assert server.stop() == 0


def test_disk_that_others_fill_refuses_sends_until_they_make_room(
    server: Server, small_disk: Path
) -> None:
    ballast = small_disk / "ballast"
    with Publisher(server.address) as publisher, Subscriber(server.address, "a") as subscriber:
        publisher.create_topic("t")
        subscriber.subscribe("t")
        publisher.send("t", b"first")
    fill_file(ballast)
    sending = Sending(server.address, size=20_000, timeout=10.0)
    wait_until(lambda: len(sending.refused) > 50 or sending.end)
    sending.stop()
    assert sending.end is None
    # Asking about it, pulling and acknowledging go on.
    assert read_all(server.address, "a") == len(sending.stored) + 1
    with Admin(server.address) as admin:
        assert admin.subscription("t", "a").unread == 0
    ballast.unlink()
    assert wait_for_room(server) < RESUME_S
    assert server.stop() == 0


def fill_file(path: Path) -> None:
    """Let a file take all that the disk has."""
    with path.open("wb", buffering=0) as file:
        for size in (MIB, 4 * KIB):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
