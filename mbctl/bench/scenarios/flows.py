"""Messages that flow: publish, end to end, fan-out, fan-in, sizes, durable."""

from collections.abc import Sequence
from functools import partial

from mbctl.bench import jobs
from mbctl.bench.cases import Case, Measure, On, Trial
from mbctl.bench.figures import Measured
from mbctl.bench.jobs import Bound, Span
from mbctl.bench.payloads import Content
from mbctl.bench.processes import cpu_s
from mbctl.bench.systems.interface import Settings

# Enough that no server waits for its publisher; more would only make slow ones slow to end.
IN_FLIGHT = 16
MEMORY = Settings(in_flight=IN_FLIGHT)
SYNCED = Settings(durability="synced", in_flight=IN_FLIGHT)

SIZES = (100, 1024, 4096, 16_384, 131_072)

END_S = 30.0
"""How much longer than it sends a flow may take to end."""
BYTES_MAX = 400 * 1024 * 1024
"""How much is sent at most in one run: a server may have to keep all of it in memory."""


def measure_flow(
    trial: Trial, publishers: int = 1, subscribers: int = 0, each: bool = False
) -> Measured:
    """Messages a second, from the first call of a publisher to the last message anywhere.

    Without subscribers, to the last acknowledgement.
    """
    case = trial.case
    names = [f"reader-{number}" for number in range(subscribers)]
    bound = Bound(trial.seconds, BYTES_MAX // case.content.size // publishers)
    with trial.stage.topic(trial.system, case.settings, case.content, names) as place:
        sending = [(jobs.publish, (place, number, bound, each)) for number in range(publishers)]
        reading = [(jobs.read, (place, name, publishers)) for name in names]
        pids = trial.stage.pids(trial.system, case.settings.durability)
        used = -sum(map(cpu_s, pids))
        spans: list[Span] = trial.stage.play(
            trial.system, [*sending, *reading], trial.seconds + END_S
        )
        used += sum(map(cpu_s, pids))
    measured = rate_of(case, spans, spans[publishers:] or spans)
    measured.details = {"server_cpu_ns_per_message": used * 1e9 / max(measured.messages, 1)}
    return measured


def publish() -> list[Case]:
    """Acknowledged messages, as fast as one publisher can."""
    each = partial(measure_flow, each=True)
    return [
        rate("publish", "publish, batches", measure_flow, on="stores"),
        rate("publish.each", "publish, one message a call", each, on="stores"),
    ]


def end_to_end() -> list[Case]:
    """One publisher, one subscriber."""
    measure = partial(measure_flow, subscribers=1)
    return [
        rate("end-to-end", "end to end, 1 to 1", measure),
        rate("end-to-end.durable", "end to end, 1 to 1, durable", measure, SYNCED),
        # Payloads of one size are found to be whole with less work than these.
        rate(
            "end-to-end.mixed",
            "end to end, 1 to 1, of mixed sizes",
            measure,
            mixed=True,
            on="ours",
        ),
    ]


def fan_out() -> list[Case]:
    """One publisher, four subscribers."""
    measure = partial(measure_flow, subscribers=4)
    return [
        rate("fan-out", "fan-out, 1 to 4, deliveries", measure),
        rate("fan-out.durable", "fan-out, 1 to 4, deliveries, durable", measure, SYNCED),
    ]


def fan_in() -> list[Case]:
    """Four publishers, one subscriber."""
    measure = partial(measure_flow, publishers=4, subscribers=1)
    return [rate("fan-in", "fan-in, 4 to 1", measure)]


def sizes() -> list[Case]:
    """End to end with messages of some sizes."""
    return [_size(size, durable=durable) for durable in (False, True) for size in SIZES]


def durable() -> list[Case]:
    """A publisher whose every acknowledgement means that the message was forced to disk."""
    return [rate("durable", "publish, durable, batches", measure_flow, SYNCED, on="stores")]


def rate(
    name: str,
    title: str,
    measure: Measure,
    settings: Settings = MEMORY,
    *,
    mixed: bool = False,
    on: On = "all",
) -> Case:
    """A case whose figure is messages a second."""
    return Case(
        name=name,
        title=title,
        unit="msg/s",
        measure=measure,
        settings=settings,
        content=Content(mixed=mixed),
        on=on,
        warms_up=True,
    )


def rate_of(case: Case, spans: Sequence[Span], ends: Sequence[Span]) -> Measured:
    """What was done in all ``spans``, as the messages that ``ends`` of them have counted."""
    seconds = (max(span.end_ns for span in ends) - min(span.begin_ns for span in spans)) / 1e9
    count = sum(span.count for span in ends)
    size = case.content.size / 1e6 if case.unit == "MB/s" else 1
    return Measured(
        value=count * size / seconds,
        messages=count,
        compared=sum(span.compared for span in spans),
        faults=[fault for span in spans for fault in span.faults],
    )


def _size(size: int, *, durable: bool) -> Case:
    name = f"sizes.{size}" + (".durable" if durable else "")
    shown = f"{size} B" if size < 1024 else f"{size // 1024} KiB"
    return Case(
        name=name,
        title=f"end to end, {shown}" + (", durable" if durable else ""),
        unit="MB/s",
        measure=partial(measure_flow, subscribers=1),
        # Batches of the same bytes: what is sent together is bounded by that.
        settings=Settings(
            durability="synced" if durable else "memory",
            batch=max(1, min(2000, 512 * 1024 // size)),
            in_flight=IN_FLIGHT,
        ),
        content=Content(size=size),
        on="ours" if durable or size == 4096 else "all",
        x=size,
        warms_up=True,
    )
