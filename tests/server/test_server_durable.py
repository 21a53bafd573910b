"""The server and its data directory: made, locked, found again, refused, and lost."""

import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest
from broker_process import PATIENCE_S, BrokerProcess

from mbctl import Admin, MbctlError, Publisher, Subscriber

Start = Callable[..., BrokerProcess]

# A server whose disk is another class: what stands before it defines ``Bad``.
_WITH_DISK = """
import errno, sys, time
from mbctl import files
{disk}
files.Disk = Bad
from mbctl.server import ServerOptions, run
# The package has a function of this name.
running = sys.modules["mbctl.server.run"]
running._STOP_S = 0.5
sys.exit(run(ServerOptions(port=0, data=sys.argv[1])))
"""

# Root may enter any directory, so it becomes somebody else once all is imported.
_AS_NOBODY = """
import os, sys
import uvloop
from mbctl.cli.commands import server
from mbctl.cli import main
import mbctl.server.run
if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)
sys.exit(main(["server", "--port", "0", "--data", sys.argv[1]]))
"""

SLOW_TO_READ = """
class Bad(files.Disk):
    def pread(self, *args):
        time.sleep(60)
"""

# The second segment is made ahead of need, by a thread, while the server starts.
HAS_ROOM_FOR_ONE = """
class Bad(files.Disk):
    calls = 0
    def allocate(self, *args):
        Bad.calls += 1
        if Bad.calls > 2:
            raise OSError(errno.EIO, "Input/output error")
        super().allocate(*args)
"""

SYNCS_AS_LONG_AS = """
class Bad(files.Disk):
    def fdatasync(self, descriptor):
        import os
        time.sleep(0.01)
        while os.path.exists(sys.argv[2] + ".hangs"):
            time.sleep(0.01)
        if os.path.exists(sys.argv[2] + ".fails"):
            raise OSError(errno.EIO, "Input/output error")
        super().fdatasync(descriptor)
"""


def refused(data: Path, *options: str) -> str:
    """The line that a server says that does not start."""
    return last_line("-m", "mbctl", "server", "--port", "0", "--data", str(data), *options)


def last_line(*command: str) -> str:
    """The error with which a command ends; the log may have warned of something before it."""
    ended = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert (ended.returncode, ended.stdout) == (1, ""), ended.stderr
    assert "Traceback" not in ended.stderr
    line = ended.stderr.splitlines()[-1]
    assert line.startswith("error: ")
    return line


class OnDisk:
    """A server on a disk of the class ``Bad`` that ``disk`` defines."""

    def __init__(self, data: Path, disk: str) -> None:
        self.data = data
        self.process = subprocess.Popen(
            [sys.executable, "-c", _WITH_DISK.format(disk=disk), str(data), str(data)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.stdout, self.stderr = self.process.stdout, self.process.stderr

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.stdout.close()
        self.stderr.close()

    def address(self) -> str:
        """Where it listens; waits for it."""
        return self.stdout.readline().split()[-1]

    def now(self, what: str) -> None:
        """Let its syncs be so from now on: ``hangs`` or ``fails``."""
        Path(f"{self.data}.{what}").touch()

    def end(self) -> tuple[int, str, str]:
        """Wait until it ends; its exit code, and the rest of what it wrote."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out, err


# --- the directory ------------------------------------------------------------------------------


def test_the_data_directory_is_made_and_is_its_owners_alone(
    tmp_path: Path, start_broker: Start
) -> None:
    data = tmp_path / "not" / "there" / "yet"
    before = os.umask(0)
    try:
        broker = start_broker(data=data)
    finally:
        os.umask(before)
    with Publisher(broker.address) as publisher:
        publisher.create_topic("t")
        publisher.send("t", b"x")
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in data.iterdir()}
    assert set(modes.values()) == {0o600}, modes
    assert "LOCK" in modes


def test_two_servers_do_not_use_one_directory(tmp_path: Path, start_broker: Start) -> None:
    data = tmp_path / "data"
    broker = start_broker(data=data)
    line = refused(data)
    assert str(data) in line
    assert str(broker.pid) in line
    with Admin(broker.address) as admin:
        assert admin.ping() > 0
    broker.kill()
    start_broker(data=data)


def test_a_port_in_use_leaves_the_directory_to_the_next_server(
    tmp_path: Path, start_broker: Start
) -> None:
    other = start_broker()
    line = refused(tmp_path / "data", "--port", str(other.port))
    assert "address already in use" in line.lower()
    start_broker(data=tmp_path / "data")


def test_a_file_is_no_data_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert str(tmp_path / "file") in refused(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_directory_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert "notes.txt" in refused(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_directory_that_everybody_may_write_to_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o777)
    assert f"chmod 700 {data}" in refused(data)
    assert list(data.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a directory away")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    os.chown(data, 12345, 12345)
    line = refused(data)
    assert str(data) in line
    assert "another user" in line


def test_a_directory_that_may_not_be_entered_is_one_clear_line(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(0)
    line = last_line("-c", _AS_NOBODY, str(closed / "data"))
    assert str(closed / "data") in line
    assert "permission denied" in line


def test_a_newer_format_is_refused_and_left_as_it_is(tmp_path: Path, start_broker: Start) -> None:
    data = tmp_path / "data"
    start_broker(data=data).stop()
    newer = re.sub(r'"format": ?\d+', '"format":99', (data / "FORMAT").read_text())
    (data / "FORMAT").write_text(newer)
    line = refused(data)
    assert "99" in line
    assert "version of mbctl" in line
    assert (data / "FORMAT").read_text() == newer


def test_a_damaged_directory_is_refused_with_the_command_for_it(
    tmp_path: Path, start_broker: Start
) -> None:
    data = tmp_path / "data"
    start_broker(data=data).stop()
    snapshot = bytearray((data / "snapshot").read_bytes())
    snapshot[0] ^= 1
    (data / "snapshot").write_bytes(snapshot)
    line = refused(data)
    assert str(data / "snapshot") in line
    assert line.endswith(f"mbctl repair --accept-loss {data}")
    assert (data / "snapshot").read_bytes() == snapshot


# --- what is there again ------------------------------------------------------------------------


@pytest.mark.parametrize("end", [BrokerProcess.stop, BrokerProcess.kill], ids=["stop", "kill"])
@pytest.mark.parametrize("sync", ["always", "never"])
def test_topics_messages_and_subscriptions_are_there_after_a_restart(
    sync: str, end: Callable[[BrokerProcess], object], tmp_path: Path, start_broker: Start
) -> None:
    broker = start_broker("--sync", sync, data=tmp_path / "data")
    with Publisher(broker.address) as publisher, Subscriber(broker.address, "s") as subscriber:
        publisher.create_topic("t", max_messages=100)
        subscriber.subscribe("t")
        publisher.send_many("t", [b"%d" % n for n in range(10)])
        subscriber.pull("t", max_messages=4, wait=5).ack()
    end(broker)
    broker = start_broker("--sync", sync, data=tmp_path / "data")
    with Admin(broker.address) as admin, Subscriber(broker.address, "s") as subscriber:
        assert admin.status().durability == sync
        topic = admin.topic("t")
        assert (topic.next_offset, topic.durability) == (10, sync)
        assert topic.settings.max_messages == 100
        assert not subscriber.subscribe("t").created
        batch = subscriber.pull("t", wait=5)
        assert [(m.offset, m.payload) for m in batch] == [(n, b"%d" % n) for n in range(4, 10)]
    assert "recovered" in broker.log
    assert ("not forced to disk" in broker.log) == (sync == "never")


def test_the_log_tells_what_was_recovered(tmp_path: Path, start_broker: Start) -> None:
    data = tmp_path / "data"
    broker = start_broker(data=data)
    with Publisher(broker.address) as publisher, Subscriber(broker.address, "s") as subscriber:
        publisher.create_topic("t")
        subscriber.subscribe("t")
        publisher.send_many("t", [b"x"] * 7)
    broker.stop()
    (line,) = [line for line in start_broker(data=data).log.splitlines() if "recovered" in line]
    for told in (f'directory="{data}"', 'durability="always"', "topics=1", "subscriptions=1"):
        assert told in line
    assert "messages=7" in line
    assert re.search(r" seconds=\d", line)


# --- ends ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_recovery_at_once(number: int, tmp_path: Path, start_broker: Start) -> None:
    data = tmp_path / "data"
    start_broker(data=data).stop()
    with OnDisk(data, SLOW_TO_READ) as slow:
        # It says what it does while it takes long.
        assert "recovering" in slow.stderr.readline()
        begin = time.monotonic()
        slow.process.send_signal(number)
        code, out, err = slow.end()
        assert time.monotonic() - begin < 2
    assert (code, out) == (0, "")
    assert "Traceback" not in err
    start_broker(data=data)


def test_a_disk_that_fails_ends_the_server_at_once(tmp_path: Path, start_broker: Start) -> None:
    data = tmp_path / "data"
    with OnDisk(data, SYNCS_AS_LONG_AS) as bad, Publisher(bad.address(), timeout=1) as publisher:
        publisher.create_topic("t")
        publisher.send("t", b"kept")
        bad.now("fails")
        begin = time.monotonic()
        with pytest.raises(MbctlError) as refusal:
            publisher.send("t", b"lost")
        assert refusal.value.code in ("OutcomeUnknown", "ConnectionLost", "ServerStopping")
        code, _, err = bad.end()
        assert time.monotonic() - begin < 2.5
    assert code == 1
    assert "critical server failed" in err
    assert str(data) in err
    assert "Traceback" not in err
    broker = start_broker(data=data)
    with Subscriber(broker.address) as subscriber:
        subscriber.subscribe("t", "earliest")
        assert subscriber.pull("t", wait=5).payloads[0] == b"kept"


def test_a_disk_that_fails_before_anybody_asks_ends_the_server_too(tmp_path: Path) -> None:
    with OnDisk(tmp_path / "data", HAS_ROOM_FOR_ONE) as bad:
        code, _, err = bad.end()
    assert code == 1
    assert "critical server failed" in err
    assert "0000000002.segment" in err


def test_a_stop_does_not_wait_for_a_disk_that_hangs(tmp_path: Path) -> None:
    with OnDisk(tmp_path / "data", SYNCS_AS_LONG_AS) as hanging:
        with Publisher(hanging.address(), timeout=0.5) as publisher:
            # A disk that has been slow is not waited for in the loop.
            for number in range(5):
                publisher.create_topic(f"t{number}")
            hanging.now("hangs")
            with pytest.raises(MbctlError):
                publisher.create_topic("t")
        begin = time.monotonic()
        hanging.process.terminate()
        code, out, err = hanging.end()
        assert time.monotonic() - begin < 3
    assert (code, out) == (1, "")
    assert "critical server stopped" in err
