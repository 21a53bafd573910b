"""What the machine can do, without any message system: the ceiling of all other figures."""

import os
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mbctl.bench.cases import Case, Trial
from mbctl.bench.crew import Job, Link
from mbctl.bench.figures import Better, Measured, timed

KIB = 1024
MIB = 1024 * KIB

_PING_BYTES = 100
_SMALL_BYTES = 64 * KIB
_COPY_BYTES = 64 * MIB
_SECONDS_MAX = 60.0
_WARM_UP = 200


def raw() -> list[Case]:
    """All of them."""
    return [
        _case("raw.stream.64k", "loopback stream, 64 KiB writes", partial(_stream, 64 * KIB)),
        _case("raw.stream", "loopback stream, 1 MiB writes", partial(_stream, MIB)),
        _case("raw.ping-pong", "ping-pong of two processes, 100 B", _ping_pong, "µs"),
        _case("raw.copy", "memory copy, 64 MiB", _copy),
        _case("raw.sync", "write + fdatasync, 100 B", partial(_sync, 100), "µs"),
        _case("raw.sync.stream", "write + fdatasync, 1 MiB blocks", partial(_sync_stream, MIB)),
    ]


def _case(name: str, title: str, measure: Callable[[Trial], Measured], unit: str = "MB/s") -> Case:
    better: Better = "more" if unit == "MB/s" else "less"
    return Case(
        name=name,
        title=title,
        unit=unit,
        better=better,
        measure=measure,
        on="machine",
    )


def _stream(block: int, trial: Trial) -> Measured:
    work: list[Job] = [(send_stream, (block, trial.seconds / 2)), (take_stream, ())]
    (begin, sent), (end, taken) = trial.stage.play("raw", work, _SECONDS_MAX)
    faults = [] if sent == taken else [f"{sent:,} bytes were sent, {taken:,} came"]
    return Measured(value=taken / (end - begin) * 1e3, messages=taken // block, faults=faults)


def _ping_pong(trial: Trial) -> Measured:
    work: list[Job] = [(ping, (trial.seconds / 2,)), (pong, ())]
    samples, _ = trial.stage.play("raw", work, _SECONDS_MAX)
    return timed(samples)


def _copy(trial: Trial) -> Measured:
    source, target = memoryview(bytearray(_COPY_BYTES)), memoryview(bytearray(_COPY_BYTES))
    # Touched before, so that no page is fetched while time is taken.
    target[:] = source
    rates = []
    for _ in range(5):
        begin = time.perf_counter()
        target[:] = source
        rates.append(_COPY_BYTES / 1e6 / (time.perf_counter() - begin))
    return Measured(value=max(rates))


def _sync(size: int, trial: Trial) -> Measured:
    return timed(_written(trial, os.urandom(size)))


def _sync_stream(size: int, trial: Trial) -> Measured:
    samples = _written(trial, os.urandom(size))
    return Measured(value=len(samples) * size / (sum(samples) / 1e3))


def _written(trial: Trial, block: bytes) -> list[int]:
    """Append a block and force it to disk, again and again; how long each took."""
    path: Path = trial.stage.new_directory() / "written"
    samples: list[int] = []
    clock = time.perf_counter_ns
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    try:
        end = clock() + int(trial.seconds / 2 * 1e9)
        while (begin := clock()) < end or len(samples) < 20:
            os.write(descriptor, block)
            os.fdatasync(descriptor)
            samples.append(clock() - begin)
    finally:
        os.close(descriptor)
        path.unlink()
    return samples


# --- jobs ---------------------------------------------------------------------------------------


def take_stream(link: Link) -> tuple[int, int]:
    """Take what comes until the end; when that was, and how many bytes."""
    buffer = bytearray(MIB)
    with _accepted(link) as connection:
        taken = 0
        while count := connection.recv_into(buffer):
            taken += count
    return time.perf_counter_ns(), taken


def send_stream(link: Link, block: int, seconds: float) -> tuple[int, int]:
    """Send blocks for some time; when that began, and how many bytes."""
    content = os.urandom(block)
    link.ready()
    with _connected(link) as connection:
        if block > _SMALL_BYTES:
            # A whole write fits in: otherwise the two take turns, which halves the rate.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, block)
        begin = time.perf_counter_ns()
        end, sent = begin + int(seconds * 1e9), 0
        while time.perf_counter_ns() < end:
            connection.sendall(content)
            sent += block
    return begin, sent


def ping(link: Link, seconds: float) -> list[int]:
    """Send a little and wait for its echo; how long each took."""
    content = os.urandom(_PING_BYTES)
    samples: list[int] = []
    clock = time.perf_counter_ns
    link.ready()
    with _connected(link) as connection:
        end = clock() + int(seconds * 1e9)
        while (begin := clock()) < end or len(samples) <= _WARM_UP:
            connection.send(content)
            connection.recv(_PING_BYTES)
            samples.append(clock() - begin)
    return samples[_WARM_UP:]


def pong(link: Link) -> None:
    """Echo what comes."""
    with _accepted(link) as connection:
        while content := connection.recv(_PING_BYTES):
            connection.send(content)


def _accepted(link: Link) -> socket.socket:
    """The other end's connection, once all are ready."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        link.shared[0] = listener.getsockname()[1]
        link.ready()
        connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _connected(link: Link) -> socket.socket:
    """A connection to the other end, after ``ready``."""
    connection = socket.create_connection(("127.0.0.1", link.shared[0]), timeout=10.0)
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection
