"""What is kept: memory, start, recovery after a crash, and space that comes back."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mbctl.bench import jobs
from mbctl.bench.cases import Case, Trial
from mbctl.bench.crew import Job, Link, WorkerFailed
from mbctl.bench.figures import Measured
from mbctl.bench.jobs import Bound, Place, Span
from mbctl.bench.processes import ServerProcess, memory_bytes
from mbctl.bench.scenarios.flows import END_S, IN_FLIGHT
from mbctl.bench.systems.interface import Durability, Settings
from mbctl.bench.systems.registry import system
from mbctl.client.admin import Admin
from mbctl.model import MIB

UNREAD = 1_000_000
"""Messages that a server has to keep where its memory is measured."""

_RECOVERED = 2_000_000
_FILL_S = 180.0
_SLOW_FILL_S = 10.0
_SETTLE_S = 0.3
_POLL_S = 0.002
_SEGMENTS_BYTES = 160 * MIB
"""A journal may have this much when it holds next to nothing: files made before they are needed."""


def start_up() -> list[Case]:
    """From starting a server to the first acknowledgement."""
    return [_start_case("start-up", "memory"), _start_case("start-up.durable", "synced")]


def memory() -> list[Case]:
    """What a server takes for messages that nobody has read."""
    return [
        _memory_case("memory", "batches of 1,000", _memory(1000), on_all=True),
        _memory_case("memory.durable", "batches of 1,000, durable", _synced(1000), on_all=True),
        _memory_case("memory.unbatched", "one by one", _memory(1), on_all=False),
        _memory_case("memory.unbatched.durable", "one by one, durable", _synced(1), on_all=False),
    ]


def recovery() -> list[Case]:
    """From starting a server on the files of one that was killed to its first answer."""
    return [
        Case(
            name="recovery",
            title=f"start after a crash, {_RECOVERED:,} unread",
            unit="ms",
            better="less",
            measure=_measure_recovery,
            settings=_synced(2000),
            on="ours",
            repeat_max=2,
        )
    ]


def reclaim() -> list[Case]:
    """From the last acknowledgement until the space is back."""
    return [
        Case(
            name="reclaim",
            title=f"space back after {_RECOVERED:,} are read",
            unit="ms",
            better="less",
            measure=_measure_reclaim,
            settings=_synced(2000),
            on="ours",
            repeat_max=2,
        )
    ]


def _memory(batch: int) -> Settings:
    return Settings(batch=batch, in_flight=IN_FLIGHT)


def _synced(batch: int) -> Settings:
    return Settings(durability="synced", batch=batch, in_flight=IN_FLIGHT)


def _start_case(name: str, durability: Durability) -> Case:
    return Case(
        name=name,
        title="start to first acknowledgement" + (", durable" if durability == "synced" else ""),
        unit="ms",
        better="less",
        measure=_measure_start,
        settings=Settings(durability=durability, batch=1, in_flight=1),
        on="stores",
        repeat_max=2,
        # The system may have let go of a program's files that nobody has read for a while.
        warms_up=True,
    )


def _memory_case(name: str, how: str, settings: Settings, *, on_all: bool) -> Case:
    return Case(
        name=name,
        title=f"server memory, 1 M unread, {how}",
        unit="MiB",
        better="less",
        measure=_measure_memory,
        settings=settings,
        on="stores" if on_all else "ours",
        repeat_max=1,
    )


def _scaled(trial: Trial, count: int) -> int:
    """``count``, or little of it for a short run, as in tests."""
    return count if trial.seconds >= 0.25 else count // 100


# --- start --------------------------------------------------------------------------------------


def _measure_start(trial: Trial) -> Measured:
    directory = trial.stage.new_directory()
    work: list[Job] = [(start, (trial.system, directory, trial.case.settings))]
    (seconds,) = trial.stage.play(trial.system, work, END_S)
    return Measured(value=seconds * 1e3, messages=1)


def start(link: Link, name: str, directory: Path, settings: Settings) -> float:
    """Start a server and publish one message; how many seconds that took."""
    link.ready()
    started = system(name)
    try:
        begin = time.perf_counter()
        address = started.start(directory, settings)
        started.create(address, "first", [])
        publishing = started.publishing(address, "first", settings)
        publishing.publish_one(b"\0" * 100)
        seconds = time.perf_counter() - begin
        publishing.close()
    finally:
        started.stop()
    return seconds


# --- memory -------------------------------------------------------------------------------------


def _measure_memory(trial: Trial) -> Measured:
    settings, content = trial.case.settings, trial.case.content
    fresh = system(trial.system)
    try:
        address = fresh.start(trial.stage.new_directory(), settings)
        place = Place(trial.system, address, "unread", settings, content)
        trial.stage.play(trial.system, [(jobs.create, (place, ["reader"]))], END_S)
        before = sum(map(memory_bytes, fresh.pids()))
        is_quick = trial.system == "mbctl" and settings.batch > 1
        seconds = _FILL_S if is_quick else _SLOW_FILL_S
        bound = Bound(seconds, _scaled(trial, UNREAD))
        work: list[Job] = [(jobs.publish, (place, 0, bound, False))]
        (span,) = trial.stage.play(trial.system, work, _FILL_S + END_S)
        time.sleep(_SETTLE_S)
        after = sum(map(memory_bytes, fresh.pids()))
    finally:
        fresh.stop()
    # Who could not take all of them in time is taken to go on as it began.
    grown = (after - before) * max(bound.messages / span.count, 1)
    return Measured(
        value=(before + grown) / MIB,
        messages=span.count,
        faults=span.faults,
        details={"empty_mib": before / MIB, "messages": span.count},
    )


# --- recovery and reclaiming --------------------------------------------------------------------


def _measure_recovery(trial: Trial) -> Measured:
    directory = trial.stage.new_directory()
    options = ["--data", str(directory)]
    with _filled(trial, directory) as (server, place, sent):
        server.kill()
        begin = time.perf_counter()
        with ServerProcess(options) as again:
            with Admin(again.address) as admin:
                kept = admin.topic(place.topic).messages
            seconds = time.perf_counter() - begin
            there = Place("mbctl", again.address, place.topic, place.settings, place.content)
            work: list[Job] = [(read_again, (there, "reader", sent))]
            (span,) = trial.stage.play(trial.system, work, END_S)
    if kept != sent:
        span.faults.append(f"{sent:,} were acknowledged, {kept:,} are there after the crash")
    return Measured(
        value=seconds * 1e3, messages=span.count, compared=span.compared, faults=span.faults
    )


def _measure_reclaim(trial: Trial) -> Measured:
    directory = trial.stage.new_directory()
    with _filled(trial, directory) as (_server, place, sent):
        full = _disk_bytes(directory)
        most = max(full / 2, _SEGMENTS_BYTES)
        work: list[Job] = [(read_again, (place, "reader", sent))]
        (span,) = trial.stage.play(trial.system, work, END_S)
        with Admin(place.address) as admin:
            deadline = time.perf_counter() + END_S
            while admin.topic(place.topic).messages or _disk_bytes(directory) > most:
                if time.perf_counter() > deadline:
                    raise WorkerFailed("the space did not come back")
                time.sleep(_POLL_S)
        seconds = time.perf_counter_ns() / 1e9 - span.end_ns / 1e9
        left = _disk_bytes(directory)
    return Measured(
        value=seconds * 1e3,
        messages=span.count,
        compared=span.compared,
        faults=span.faults,
        details={"disk_mib_before": full / MIB, "disk_mib_after": left / MIB},
    )


@contextmanager
def _filled(trial: Trial, directory: Path) -> Iterator[tuple[ServerProcess, Place, int]]:
    """A durable server with unread messages; it may be killed inside the block."""
    case = trial.case
    server = ServerProcess(["--data", str(directory)])
    try:
        place = Place("mbctl", server.address, "unread", case.settings, case.content)
        trial.stage.play(trial.system, [(jobs.create, (place, ["reader"]))], END_S)
        bound = Bound(_FILL_S, _scaled(trial, _RECOVERED))
        work: list[Job] = [(jobs.publish, (place, 0, bound, False))]
        (span,) = trial.stage.play(trial.system, work, _FILL_S + END_S)
        yield server, place, span.count
    finally:
        server.stop()


def read_again(link: Link, place: Place, name: str, sent: int) -> Span:
    """Read what was sent before."""
    link.shared[0] = sent
    return jobs.read(link, place, name, 1)


def _disk_bytes(directory: Path) -> int:
    """What the files of a directory take up."""
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue  # It was deleted just now, as it should be.
    return total
