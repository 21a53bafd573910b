"""The scenarios by name, and what a run without any of them measures."""

from collections.abc import Callable

from mbctl.bench.cases import Case
from mbctl.bench.scenarios import flows, growth, keeping, latency, library, raw

SCENARIOS: dict[str, Callable[[], list[Case]]] = {
    "raw": raw.raw,
    "publish": flows.publish,
    "end-to-end": flows.end_to_end,
    "fan-out": flows.fan_out,
    "fan-in": flows.fan_in,
    "sizes": flows.sizes,
    "latency": latency.latency,
    "durable": lambda: [*flows.durable(), latency.durable_one(), library.durable_64()],
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
}
"""In the order in which they are run and reported."""

TOUR = ("raw", "publish", "end-to-end", "fan-out", "latency", "durable")
"""What shows most in a minute."""
