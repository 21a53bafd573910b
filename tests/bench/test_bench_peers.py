"""Every peer does what the benchmark takes for granted, with a server of its own."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from mbctl.bench.systems.interface import Reading, Settings, System, Unavailable
from mbctl.bench.systems.registry import PEERS, system

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
_IDLE_S = 10.0
# What a way has to survive: nothing, what ends lines, what looks like a command, and more than
# fits into one packet, frame or reading of the socket.
_PAYLOADS = [
    *(b"", b"\0", b"\r\n", b"+ACK\r\n", b"$3\r\n%d%b", bytes(range(256)), b"last\r"),
    *(random.Random(size).randbytes(size) for size in (1, 100, 1500, 70_000, 300_000)),
    *(b"%d" % number for number in range(488)),
    # A batch that begins with a large one, which is written in another way.
    *(random.Random(1).randbytes(70_000), b"", b"small"),
    *(b"%d" % number for number in range(1000)),
]
_FEW = _PAYLOADS[:12]
_STARTING = """
import json, sys, time
from pathlib import Path
from mbctl.bench.systems.interface import Settings
from mbctl.bench.systems.registry import system
peer = system(sys.argv[1])
peer.start(Path(sys.argv[2]), Settings())
print(json.dumps(peer.pids()), flush=True)
time.sleep(60)
"""
_ASKING = """
import sys
sys.path[:0] = sys.argv[2:]
from mbctl.bench.systems.interface import Unavailable
from mbctl.bench.systems.registry import system
try:
    print("version", system(sys.argv[1]).version())
except Unavailable as refusal:
    print("refused:", refusal)
"""


def _installed(name: str) -> System:
    """The system; the test is skipped where it is not installed, but not in CI."""
    peer = system(name)
    try:
        peer.version()
    except Unavailable as refusal:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(refusal))
    return peer


@contextmanager
def _running(name: str, directory: Path, settings: Settings) -> Iterator[tuple[System, str]]:
    """A peer and its address. No process of its server is left afterwards."""
    peer = _installed(name)
    pids: list[int] = []
    try:
        address = peer.start(directory, settings)
        pids = peer.pids()
        yield peer, address
        pids = [*pids, *peer.pids()]
    finally:
        peer.stop()
    assert _left(pids) == []


def _left(pids: Sequence[int]) -> list[int]:
    """Those of these processes that are still at work."""
    return [pid for pid in pids if _state(pid) not in ("", "Z")]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return ""


def _batches(payloads: Sequence[bytes], count: int) -> Iterator[Sequence[bytes]]:
    return (payloads[first : first + count] for first in range(0, len(payloads), count))


def _read(reading: Reading, count: int) -> list[bytes]:
    """That many payloads."""
    got: list[bytes] = []
    if not count:
        return got
    for group in reading.read(_IDLE_S):
        assert len(group) > 0
        got += map(bytes, group)
        if len(got) >= count:
            return got
    raise AssertionError(f"only {len(got)} of {count} came")


@pytest.mark.parametrize("name", PEERS)
def test_peer_hands_out_everything_until_it_is_acknowledged(name: str, tmp_path: Path) -> None:
    for durability in _installed(name).durabilities:
        settings = Settings(durability, batch=500, in_flight=4)
        with _running(name, tmp_path / durability, settings) as (peer, address):
            _check_deliveries(peer, address, settings)
            if peer.stores:
                _check_kept(peer.name, address, settings)
                if durability != "memory":
                    _check_on_disk(peer.name, address, tmp_path / durability, settings)


def _check_deliveries(peer: System, address: str, settings: Settings) -> None:
    """All three ways of publishing, one after the other, reach two subscribers as they are."""
    peer.create(address, "orders", ["one", "two"])
    readings = [peer.reading(address, "orders", name, settings) for name in ("one", "two")]
    publishing = peer.publishing(address, "orders", settings)

    def publish_one_by_one(batches: Iterator[Sequence[bytes]]) -> int:
        payloads = [payload for batch in batches for payload in batch]
        for payload in payloads:
            publishing.publish_one(payload)
        return len(payloads)

    with ThreadPoolExecutor(len(readings)) as threads:
        for publish, payloads in (
            (publishing.publish, _PAYLOADS),
            (publishing.publish_each, _PAYLOADS),
            (publish_one_by_one, _FEW),
        ):
            got = [threads.submit(_read, reading, len(payloads)) for reading in readings]
            assert publish(_batches(payloads, settings.batch)) == len(payloads)
            for each in got:
                assert each.result() == payloads
    publishing.close()
    for reading in readings:
        reading.close()


def _check_kept(name: str, address: str, settings: Settings) -> None:
    """What was sent waits for its subscriber, and is gone when that has acknowledged it."""
    settings = Settings(settings.durability, batch=1, in_flight=8)
    # As a worker does, which knows the address only.
    peer = system(name)
    peer.create(address, "letters", ["one"])
    publishing = peer.publishing(address, "letters", settings)
    assert publishing.publish(_batches(_FEW, 1)) == len(_FEW)
    publishing.close()
    for expected in (_FEW, []):
        reading = peer.reading(address, "letters", "one", settings)
        assert _read(reading, len(expected)) == expected
        assert list(reading.read(0.05)) == []
        reading.close()
    peer.drop(address, "letters")
    peer.create(address, "letters", ["one"])
    reading = peer.reading(address, "letters", "one", settings)
    assert list(reading.read(0.05)) == []
    reading.close()


def _check_on_disk(name: str, address: str, directory: Path, settings: Settings) -> None:
    """What is acknowledged is in a file, if that was asked for where the server was started.

    At once, or, where only "written" was asked for, soon: redis puts a write off while an
    fsync of its is under way.
    """
    peer = system(name)
    peer.create(address, "files", ["one"])
    with closing(peer.publishing(address, "files", settings)) as publishing:
        for seed, publish in enumerate((publishing.publish, publishing.publish_each)):
            payload = random.Random(seed).randbytes(1500)
            assert publish(_batches([payload], 1)) == 1
            deadline = time.monotonic() + (_IDLE_S if settings.durability == "written" else 0)
            while not _is_kept(payload, directory):
                assert time.monotonic() < deadline


def _is_kept(payload: bytes, directory: Path) -> bool:
    """Whether a file below the directory has it."""
    for path in directory.rglob("*"):
        # One that a server has just done away with has nothing.
        with suppress(FileNotFoundError, IsADirectoryError):
            if payload in path.read_bytes():
                return True
    return False


@pytest.mark.parametrize("name", PEERS)
def test_peer_says_how_it_is_used(name: str) -> None:
    peer = _installed(name)
    assert any(character.isdigit() for character in peer.version())
    for durability in peer.durabilities:
        assert len(peer.describe(Settings(durability))) > 30


@pytest.mark.parametrize("name", PEERS)
def test_server_of_a_peer_ends_with_ctrl_c(name: str, tmp_path: Path) -> None:
    assert _left(_started_and_told(name, tmp_path, signal.SIGINT)) == []


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="only Linux ends them by itself")
def test_server_of_a_peer_ends_when_who_started_it_is_killed(tmp_path: Path) -> None:
    pids = _started_and_told("redis", tmp_path, signal.SIGKILL)
    deadline = time.monotonic() + _IDLE_S
    while _left(pids):
        assert time.monotonic() < deadline


def _started_and_told(name: str, directory: Path, number: signal.Signals) -> list[int]:
    """The server's processes; who started it ended by this signal."""
    _installed(name)
    command = [sys.executable, "-c", _STARTING, name, directory]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        pids: list[int] = json.loads(process.stdout.readline())
        process.send_signal(number)
        process.wait(30)
    return pids


@pytest.mark.parametrize("name", PEERS)
def test_peer_that_is_missing_says_what_to_do(name: str, tmp_path: Path) -> None:
    # A Python with nothing but what mbctl needs here, and an empty path.
    (tmp_path / "msgspec").symlink_to(Path(msgspec.__file__).parent)
    python = getattr(sys, "_base_executable", sys.executable)
    command = [python, "-S", "-E", "-c", _ASKING, name, str(ROOT), str(tmp_path)]
    said = subprocess.check_output(command, text=True, env={"PATH": ""})
    assert said.startswith("refused: ")
    assert "is not installed; scripts/install-peers gets it" in said
