"""Break a cluster of three nodes under load, and hold a ledger against it.

    scripts/break-cluster 20                   20 rounds of about 50 s, each on a new cluster
    scripts/break-cluster 20 --report          and write reports/cluster_faults.json and .md
    scripts/break-cluster 20 --readers 2       two readers that share the work, one at each server
    scripts/break-cluster 3 --only paused      only the faults with that in their name

In each round every fault of ``tests/cluster/cluster_world.py`` comes in turn, while one publisher
sends and a single reader reads and acknowledges. Prints a line for each round as it ends; exits
with 1 if anything was lost, stored twice, came again after its acknowledgement was confirmed, came
out of order, or if a pause was too long.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from measuring.machine import machine

ROOT = Path(__file__).parent.parent
# The tests are no package, and the faults are theirs.
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "cluster")]

from cluster_world import FAULTS, SERVICE_S, Fault, World  # noqa: E402


class Round(msgspec.Struct):
    """What one cluster went through, and what the ledger found."""

    faults: list[Fault]
    sent: int
    lost: int
    stored_twice: int
    again_after_confirmed: int
    again_before_confirmed: int
    out_of_order: int

    @property
    def is_right(self) -> bool:
        """Whether all that is promised was kept."""
        return all(one.is_soon_over for one in self.faults) and not (
            self.lost or self.stored_twice or self.again_after_confirmed or self.out_of_order
        )


def one_round(names: list[str], readers: int) -> Round:
    """Start a cluster, break it in these ways, and end it."""
    with tempfile.TemporaryDirectory() as directory:
        world = World(Path(directory), readers=readers)
        try:
            for name in names:
                world.suffer(name)
        finally:
            world.close()
    ledger = world.ledger
    if ledger.errors:
        raise ledger.errors[0]
    return Round(
        faults=world.faults,
        sent=len(ledger.sent),
        lost=len(ledger.lost),
        stored_twice=len(ledger.stored_twice),
        again_after_confirmed=len(ledger.again),
        again_before_confirmed=ledger.read_twice - len(ledger.again),
        out_of_order=len(ledger.out_of_order),
    )


def line_of(number: int, one: Round) -> str:
    """A round as a line."""
    faults = ", ".join(
        f"{fault.name} {fault.back_s:.1f} ({fault.sending_pause_s:.1f}/{fault.reading_pause_s:.1f}"
        f"/{fault.leaderless_s:.1f})"
        for fault in one.faults
    )
    return (
        f"round {number}{'' if one.is_right else ' FAILED'}: sent {one.sent}, lost {one.lost}, "
        f"stored twice {one.stored_twice}, again {one.again_after_confirmed} after and "
        f"{one.again_before_confirmed} before it was confirmed, out of order {one.out_of_order}; "
        f"{faults}"
    )


class Figures(msgspec.Struct):
    """What the report says: the rounds with a single reader, and those with two."""

    machine: dict[str, Any] = {}
    single_reader: list[Round] = []
    two_readers: list[Round] = []


def page_of(figures: Figures) -> str:
    """The rounds as a page of the reports."""
    single, two = figures.single_reader, figures.two_readers
    lines = [
        "# Faults of a cluster",
        "",
        f"{len(single)} rounds of `scripts/break-cluster --report`, and {len(two)} with",
        "`--readers 2`: three nodes and replicas, two servers, a publisher with four batches under",
        "way and a single reader, or two that share the work, one at each server, who wait for",
        f"each acknowledgement; all on one machine with {figures.machine['cores']} cores that",
        "others used too. [cluster_faults.json](cluster_faults.json) has each round.",
        "",
        "| ledger | a single reader | two readers |",
        "|---|---|---|",
    ]
    for name, count in LEDGER.items():
        totals = (f"{sum(map(count, rounds)):,}" for rounds in (single, two))
        lines.append(f"| {name} | {' | '.join(totals)} |")
    for title, rounds in (("A single reader", single), ("Two readers", two)):
        lines += ["", f"## {title}", "", *TIMES, *times_of(rounds)]
    return "\n".join([*lines, ""])


LEDGER: dict[str, Callable[[Round], int]] = {
    "messages whose send was acknowledged": lambda one: one.sent,
    "lost": lambda one: one.lost,
    "stored twice": lambda one: one.stored_twice,
    "again after a confirmed acknowledgement": lambda one: one.again_after_confirmed,
    "again before it was confirmed": lambda one: one.again_before_confirmed,
    "out of order, of a single reader": lambda one: one.out_of_order,
    "faults": lambda one: len(one.faults),
    "faults after which one kind of service paused for 10 s or more": lambda one: sum(
        fault.longest_s >= SERVICE_S for fault in one.faults
    ),
}

TIMES = [
    "Seconds from the fault until 300 messages that were sent after it were read (for a server:",
    "from when another is there), and until all nodes were back the longest time without an",
    "acknowledged send, a delivery, and a leader of the stream, the consumer and the",
    "bucket. The last column is how much longer than without a leader it was without service:",
    "",
    "| fault | back: median | worst | no send: worst | no delivery | no leader | added |",
    "|" + "---|" * 7,
]


def times_of(rounds: list[Round]) -> Iterator[str]:
    """A line for each fault."""
    for name in FAULTS:
        some = [fault for one in rounds for fault in one.faults if fault.name == name]
        if some:
            back = sorted(fault.back_s for fault in some)
            sending = max(fault.sending_pause_s for fault in some)
            reading = max(fault.reading_pause_s for fault in some)
            leaderless = max(fault.leaderless_s for fault in some)
            added = max(0.0, *(fault.longest_s - fault.leaderless_s for fault in some))
            times = (back[len(back) // 2], back[-1], sending, reading, leaderless, added)
            yield f"| {name} | {' | '.join(f'{seconds:.1f}' for seconds in times)} |"


def report(rounds: list[Round], readers: int) -> None:
    """Write the report anew, with these rounds in the place of those with as many readers."""
    file = ROOT / "reports" / "cluster_faults"
    raw = file.with_suffix(".json")
    figures = msgspec.json.decode(raw.read_bytes(), type=Figures) if raw.exists() else Figures()
    figures.machine = machine()
    if readers == 1:
        figures.single_reader = rounds
    else:
        figures.two_readers = rounds
    raw.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=2) + b"\n")
    file.with_suffix(".md").write_text(page_of(figures))


def main() -> int:
    """Run the rounds and say what came of them."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rounds", type=int, nargs="?", default=1)
    parser.add_argument("--readers", type=int, choices=(1, 2), default=1)
    parser.add_argument("--only", default="", help="what the name of a fault has to have")
    parser.add_argument("--report", action="store_true", help="write reports/cluster_faults.*")
    options = parser.parse_args()
    names = [name for name in FAULTS if options.only in name]
    rounds: list[Round] = []
    for number in range(1, options.rounds + 1):
        rounds.append(one_round(names, options.readers))
        print(line_of(number, rounds[-1]), flush=True)
        if options.report:
            report(rounds, options.readers)
    return 0 if all(one.is_right for one in rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
