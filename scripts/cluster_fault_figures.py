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
from pathlib import Path

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
        is_soon = all(
            max(one.sending_pause_s, one.reading_pause_s) < SERVICE_S for one in self.faults
        )
        return is_soon and not (
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
        f"{fault.name} {fault.back_s:.1f} ({fault.sending_pause_s:.1f}/{fault.reading_pause_s:.1f})"
        for fault in one.faults
    )
    return (
        f"round {number}{'' if one.is_right else ' FAILED'}: sent {one.sent}, lost {one.lost}, "
        f"stored twice {one.stored_twice}, again {one.again_after_confirmed} after and "
        f"{one.again_before_confirmed} before it was confirmed, out of order {one.out_of_order}; "
        f"{faults}"
    )


def page_of(rounds: list[Round], names: list[str]) -> str:
    """The rounds as a page of the reports."""
    lines = [
        "# Faults of a cluster",
        "",
        f"{len(rounds)} rounds of `scripts/break-cluster`: three nodes and replicas, two servers,",
        "a publisher with four batches under way and a single reader that waits for each",
        f"acknowledgement, on one machine with {machine()['cores']} cores that others used too.",
        "[cluster_faults.json](cluster_faults.json) has the figures of each round.",
        "",
        "Seconds from the fault until 300 messages that were sent after it were read (for a",
        "server: from when another is there), and the longest time without an acknowledged send",
        "and without a delivery, until all nodes were back:",
        "",
        "| fault | back: median | worst | no send: worst | no delivery: worst |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        some = [fault for one in rounds for fault in one.faults if fault.name == name]
        back = sorted(fault.back_s for fault in some)
        sending = max(fault.sending_pause_s for fault in some)
        reading = max(fault.reading_pause_s for fault in some)
        times = (back[len(back) // 2], back[-1], sending, reading)
        lines.append(f"| {name} | {' | '.join(f'{seconds:.1f}' for seconds in times)} |")
    totals = {
        "messages whose send was acknowledged": sum(one.sent for one in rounds),
        "lost": sum(one.lost for one in rounds),
        "stored twice": sum(one.stored_twice for one in rounds),
        "again after a confirmed acknowledgement": sum(o.again_after_confirmed for o in rounds),
        "again before it was confirmed": sum(one.again_before_confirmed for one in rounds),
        "out of order": sum(one.out_of_order for one in rounds),
    }
    lines += ["", "| ledger | |", "|---|---|"]
    lines += [f"| {name} | {value:,} |" for name, value in totals.items()]
    return "\n".join([*lines, ""])


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
            figures = {"command": " ".join(sys.argv), "machine": machine(), "rounds": rounds}
            text = msgspec.json.format(msgspec.json.encode(figures), indent=2)
            report = ROOT / "reports" / "cluster_faults"
            report.with_suffix(".json").write_bytes(text + b"\n")
            report.with_suffix(".md").write_text(page_of(rounds, names))
    return 0 if all(one.is_right for one in rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
