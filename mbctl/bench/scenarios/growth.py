"""How the cost of a message grows with what else there is: it should not.

Every curve does the same work at each of its points: as many messages in as many sends and
pulls, spread over more topics, subscriptions or connections, or beside more that is unread.
"""

import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import cycle, islice

from mbctl.bench import jobs
from mbctl.bench.cases import Case, Measure, Trial
from mbctl.bench.crew import Job, Link
from mbctl.bench.figures import Measured
from mbctl.bench.jobs import Bound, Place, Span
from mbctl.bench.payloads import Check, batches_of
from mbctl.bench.processes import cpu_s
from mbctl.bench.scenarios.flows import BYTES_MAX, END_S, rate_of
from mbctl.bench.systems.interface import Settings
from mbctl.client.admin import Admin
from mbctl.client.publisher import Publisher
from mbctl.client.subscriber import Subscriber

TOPICS = (1, 10, 100, 1_000, 10_000)
SUBSCRIPTIONS = (1, 10, 100, 1_000)
CONNECTIONS = (1, 100, 1_000, 5_000)
BACKLOGS = (0, 10_000, 100_000, 1_000_000)

_SENDS = 10_000
_BATCH = 100
_IN_FLIGHT = 64
_PHASES_S = 120.0
"""As long as sending and pulling may take on a machine that has other work."""
# Files of a process beside its connections.
_FILES = 100


def topics() -> list[Case]:
    """The same sends and pulls over more and more topics."""
    return [_case(f"topics.{n}", f"{n:,} topics", _measure_topics, n) for n in TOPICS]


def subscriptions() -> list[Case]:
    """The same pulls by more and more subscribers of one topic."""
    return [
        _case(f"subscriptions.{n}", f"{n:,} subscriptions of a topic", _measure_subscriptions, n)
        for n in SUBSCRIPTIONS
    ]


def connections() -> list[Case]:
    """End to end beside idle connections; and the same sends over more and more connections."""
    idle = [
        _case(f"connections.idle.{n}", f"end to end, {n:,} idle connections", _measure_idle, n)
        for n in CONNECTIONS
    ]
    busy = [
        _case(f"connections.busy.{n}", f"publish over {n:,} connections", _measure_busy, n)
        for n in CONNECTIONS
    ]
    return [*idle, *busy]


def backlog() -> list[Case]:
    """End to end beside more and more that another subscriber has not read; and while it reads."""
    beside = [
        _case(f"backlog.{n}", f"end to end beside {n:,} unread", _measure_beside, n)
        for n in BACKLOGS
    ]
    reading = partial(_measure_beside, read_old=True)
    return [
        *beside,
        _case("backlog.live", "end to end while a million old are read", reading, BACKLOGS[-1]),
    ]


def _case(name: str, title: str, measure: "Measure | partial[Measured]", x: int) -> Case:
    is_backlog = name.startswith("backlog")
    return Case(
        name=name,
        title=title,
        unit="msg/s",
        measure=measure,
        settings=Settings(
            durability="synced" if is_backlog else "memory",
            batch=2000 if is_backlog or "idle" in name else _BATCH,
        ),
        on="ours",
        x=x,
        repeat_max=2,
    )


def _count(trial: Trial) -> int:
    """How many things there are at this point of the curve."""
    assert trial.case.x is not None
    return int(trial.case.x)


# --- topics -------------------------------------------------------------------------------------


def _measure_topics(trial: Trial) -> Measured:
    """Messages a second of sending and pulling together."""
    count, case = _count(trial), trial.case
    with trial.stage.topic(trial.system, case.settings, case.content) as place:
        work: list[Job] = [(use_topics, (place, count, _sends(trial)))]
        ((published, read),) = trial.stage.play(trial.system, work, _PHASES_S)
    return _two_phases(published, read)


def _sends(trial: Trial) -> int:
    """How many; fewer for a short run, as in tests."""
    return _SENDS if trial.seconds >= 0.25 else max(_count(trial), 100)


def _two_phases(published: Span, read: Span) -> Measured:
    seconds = (published.end_ns - published.begin_ns + read.end_ns - read.begin_ns) / 1e9
    return Measured(
        value=read.count / seconds,
        messages=read.count,
        compared=read.compared,
        faults=read.faults,
        details={
            "published_per_s": published.count / (published.end_ns - published.begin_ns) * 1e9,
            "read_per_s": read.count / (read.end_ns - read.begin_ns) * 1e9,
        },
    )


def use_topics(link: Link, place: Place, count: int, sends: int) -> tuple[Span, Span]:
    """Send a batch to one topic after the other, and then pull all of them."""
    # The server's limit leaves no room for one more than the curve asks for.
    names = [place.topic, *[f"{place.topic}-{number}" for number in range(1, count)]]
    clock = time.perf_counter_ns
    with (
        Publisher(place.address, timeout=END_S) as publisher,
        Subscriber(place.address, name="reader", timeout=END_S) as subscriber,
    ):
        for name in names:
            publisher.create_topic(name)
            subscriber.subscribe(name)
        batches = list(islice(batches_of(place.content, 0, _BATCH), sends))
        link.ready()
        begin = clock()
        with publisher.pipeline() as pipe:
            for name, batch in zip(cycle(names), batches):
                pipe.send_many(name, batch)
        published = Span(begin, clock(), pipe.sent)
        begin = clock()
        wrong = read = 0
        for name, batch in zip(cycle(names), batches):
            payloads = subscriber.pull(name, _BATCH, wait=0).payloads
            read += len(payloads)
            wrong += payloads != batch
        faults = [f"{wrong:,} pulls did not bring what was sent"] if wrong else []
        span = Span(begin, clock(), read, faults, read)
        for name in names[1:]:
            publisher.delete_topic(name)
    return published, span


# --- subscriptions ------------------------------------------------------------------------------


def _measure_subscriptions(trial: Trial) -> Measured:
    """Deliveries a second of sending and pulling together."""
    count, case = _count(trial), trial.case
    with trial.stage.topic(trial.system, case.settings, case.content) as place:
        work: list[Job] = [(use_subscriptions, (place, count, _sends(trial) // count or 1))]
        ((published, read),) = trial.stage.play(trial.system, work, _PHASES_S)
    return _two_phases(published, read)


def use_subscriptions(link: Link, place: Place, count: int, sends: int) -> tuple[Span, Span]:
    """Send some batches, and have all subscribers pull each of them."""
    clock = time.perf_counter_ns
    checks = [Check(place.content, 1, _BATCH) for _ in range(count)]
    with ExitStack() as stack, many_files(count):
        publisher = stack.enter_context(Publisher(place.address, timeout=END_S))
        readers = [
            stack.enter_context(Subscriber(place.address, name=f"reader-{n}", timeout=END_S))
            for n in range(count)
        ]
        for reader in readers:
            reader.subscribe(place.topic)
        batches = list(islice(batches_of(place.content, 0, _BATCH), sends))
        link.ready()
        begin = clock()
        with publisher.pipeline() as pipe:
            for batch in batches:
                pipe.send_many(place.topic, batch)
        published = Span(begin, clock(), pipe.sent)
        begin = clock()
        for _ in batches:
            for reader, check in zip(readers, checks, strict=True):
                check.take(reader.pull(place.topic, _BATCH, wait=0).payloads)
        end = clock()
    for check in checks:
        check.finish([pipe.sent])
    faults = [fault for check in checks for fault in check.faults]
    count = sum(check.count for check in checks)
    return published, Span(begin, end, count, faults, count)


# --- connections --------------------------------------------------------------------------------


@contextmanager
def many_files(count: int) -> Iterator[None]:
    """Let this process have so many connections, if it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _FILES
    if soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _measure_idle(trial: Trial) -> Measured:
    case = trial.case
    with (
        trial.stage.topic(trial.system, case.settings, case.content, ["reader"]) as place,
        many_files(_count(trial)),
        ExitStack() as stack,
    ):
        for _ in range(_count(trial) - 1):
            stack.enter_context(Admin(place.address))
        bound = Bound(trial.seconds, BYTES_MAX // case.content.size)
        work: list[Job] = [
            (jobs.publish, (place, 0, bound, False)),
            (jobs.read, (place, "reader", 1)),
        ]
        spans: list[Span] = trial.stage.play(trial.system, work, trial.seconds + END_S)
    return rate_of(case, spans, spans[1:])


def _measure_busy(trial: Trial) -> Measured:
    case = trial.case
    with trial.stage.topic(trial.system, case.settings, case.content) as place:
        (pid,) = trial.stage.pids(trial.system, case.settings.durability)
        work: list[Job] = [(use_connections, (place, _count(trial), trial.seconds, pid))]
        ((span, used),) = trial.stage.play(trial.system, work, trial.seconds + END_S)
    measured = rate_of(case, [span], [span])
    measured.details = {"server_cpu_ns_per_message": used * 1e9 / max(span.count, 1)}
    return measured


def use_connections(
    link: Link, place: Place, count: int, seconds: float, server: int
) -> tuple[Span, float]:
    """Send batches over one connection after the other, with up to 64 of them without an answer.

    Also the processor time that the ``server`` has used meanwhile, in seconds.
    """
    batches = batches_of(place.content, 0, _BATCH)
    with ExitStack() as stack, many_files(count):
        pipes = [
            stack.enter_context(Publisher(place.address, timeout=END_S)).pipeline()
            for _ in range(count)
        ]
        turns = cycle(pipes)
        link.ready()
        used_before = cpu_s(server)
        begin = time.perf_counter_ns()
        end, sent = begin + int(seconds * 1e9), 0
        while time.perf_counter_ns() < end:
            used = [next(turns) for _ in range(_IN_FLIGHT)]
            for pipe in used:
                pipe.send_many(place.topic, next(batches))
            sent += _IN_FLIGHT * _BATCH
            for pipe in used:
                pipe.flush()
        span = Span(begin, time.perf_counter_ns(), sum(pipe.sent for pipe in pipes))
        server_s = cpu_s(server) - used_before
    if span.count != sent:
        span.faults.append(f"{sent:,} sent, {span.count:,} acknowledged")
    return span, server_s


# --- backlog ------------------------------------------------------------------------------------


def _measure_beside(trial: Trial, read_old: bool = False) -> Measured:
    """Live messages a second, beside old ones that a subscriber has not read or is reading."""
    case, old = trial.case, _count(trial)
    if trial.seconds < 0.25:
        old = min(old, 10_000)
    with trial.stage.topic(trial.system, case.settings, case.content, ["old"]) as place:
        if old:
            work: list[Job] = [(jobs.publish, (place, 1, Bound(END_S, old), False))]
            trial.stage.play(trial.system, work, 2 * END_S)
        trial.stage.play(trial.system, [(jobs.create, (place, ["live"]))], END_S)
        bound = Bound(trial.seconds, BYTES_MAX // case.content.size)
        work = [(jobs.publish, (place, 0, bound, False)), (jobs.read, (place, "live", 1))]
        if read_old:
            work.append((read_some, (place, "old", old)))
        spans: list[Span] = trial.stage.play(trial.system, work, trial.seconds + END_S)
    measured = rate_of(case, spans[:2], spans[1:2])
    for span in spans[2:]:
        measured.messages += span.count
        measured.compared += span.compared
        measured.faults += span.faults
        measured.details["old_per_s"] = span.count / (span.end_ns - span.begin_ns) * 1e9
    return measured


def read_some(link: Link, place: Place, name: str, count: int) -> Span:
    """Read so many messages of two publishers, and look at them; more may follow."""
    check = Check(place.content, 2, place.settings.batch)
    with Subscriber(place.address, name=name, timeout=END_S) as subscriber:
        link.ready()
        begin = time.perf_counter_ns()
        while check.count < count:
            payloads = subscriber.pull(place.topic, place.settings.batch, wait=END_S).payloads
            check.take(payloads)
        end = time.perf_counter_ns()
    return Span(begin, end, check.count, check.faults, check.count)
