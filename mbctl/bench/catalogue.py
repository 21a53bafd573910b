"""The scenarios by name, and what a run without any of them measures."""

from collections.abc import Callable

import msgspec

from mbctl.bench.cases import Case
from mbctl.bench.payloads import Content
from mbctl.bench.scenarios import flows, growth, keeping, latency, library, raw


def verified() -> list[Case]:
    """Some of the others with every message numbered and looked at by itself, once."""
    cases = (*flows.end_to_end(), *flows.fan_out(), *flows.fan_in(), library.follow()[0])
    return [
        msgspec.structs.replace(
            case,
            name=f"verified.{case.name}",
            title=f"{case.title}, every message looked at",
            content=Content(numbered=True),
            on="ours",
            repeat_max=1,
        )
        for case in cases
    ]


SCENARIOS: dict[str, Callable[[], list[Case]]] = {
    "raw": raw.raw,
    # Close to the machine's figures, which their floors are computed from.
    "latency": latency.latency,
    "durable": lambda: [*flows.durable(), latency.durable_one(), library.durable_64()],
    "publish": flows.publish,
    "end-to-end": flows.end_to_end,
    "fan-out": flows.fan_out,
    "fan-in": flows.fan_in,
    "sizes": flows.sizes,
    "follow": library.follow,
    "keys": library.keys,
    "start-up": keeping.start_up,
    "memory": keeping.memory,
    "recovery": keeping.recovery,
    "reclaim": keeping.reclaim,
    "backlog": growth.backlog,
    "topics": growth.topics,
    "subscriptions": growth.subscriptions,
    "connections": growth.connections,
    "verified": verified,
}
"""In the order in which they are run and reported."""

TOUR = ("raw", "publish", "end-to-end", "fan-out", "latency", "durable")
"""What shows most in a minute."""
