"""One run of ``mbctl bench``: from what was asked for to the results."""

import math
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import msgspec

from mbctl.bench.cases import Case
from mbctl.bench.catalogue import SCENARIOS, TOUR
from mbctl.bench.conditions import Condition, parse_condition
from mbctl.bench.figures import Results
from mbctl.bench.machine import machine
from mbctl.bench.payloads import HEAD
from mbctl.bench.progress import progress_bar, say_nothing
from mbctl.bench.running import Plan, Runner, results_of
from mbctl.bench.systems.interface import Durability
from mbctl.bench.systems.registry import PEERS
from mbctl.errors import InvalidArgument
from mbctl.model import LIMITS

SUITE = "suite"

_TOUR_SECONDS = 0.7
_SUITE_SECONDS = 0.5
_SUITE_SECONDS_MAX = 720.0


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for."""

    scenarios: list[str] = []
    """None is the tour."""
    peers: list[str] = []
    repeat: int = 3
    seconds: float | None = None
    """How long publishers send; by default 1 s, and less where there is a lot to do."""
    size: int | None = None
    batch: int | None = None
    durability: Durability | None = None
    verify: bool = False
    directory: Path | None = None
    fail_if: list[str] = []
    only: list[str] = []
    """The parts of the suite."""


class Session:
    """A run that is ready to begin; everything about it has been checked.

    Raises:
        InvalidArgument: a scenario, a peer or a condition is not there.
    """

    def __init__(self, wish: Wish) -> None:
        _check_size(wish.size)
        is_suite = SUITE in wish.scenarios
        self.is_part = not is_suite or bool(wish.only)
        """Whether a report keeps what it has of other scenarios."""
        cases = [_adapted(case, wish) for case in _cases(wish)]
        _check_names("peer", wish.peers, PEERS)
        names = [case.name for case in cases]
        self.conditions: list[Condition] = [parse_condition(c, names) for c in wish.fail_if]
        self._plan = Plan(
            cases=cases,
            peers=wish.peers,
            repeat=wish.repeat,
            seconds=wish.seconds or _seconds(wish, is_suite=is_suite),
            seconds_max=_SUITE_SECONDS_MAX if is_suite else math.inf,
            numbered=wish.verify,
            directory=wish.directory,
        )

    def run(self, *, bar: bool) -> Results:
        """Measure everything. After a Ctrl-C the results are partial, and say so."""
        # Before there is any load of ours.
        found = machine()
        began = time.time()
        partial = False
        with progress_bar() if bar else nullcontext(say_nothing) as watch:
            runner = Runner(self._plan, watch)
            try:
                with _ended_by_signals():
                    runner.run()
            except KeyboardInterrupt:
                partial = True
        command = shlex.join(["mbctl", *sys.argv[1:]])
        results = results_of(runner, command, began, partial=partial)
        results.machine = found
        return results


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let what ends processes be as a Ctrl-C: no server is to be left behind."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # Also where it was ignored, as in a shell's background.
    before = {number: signal.signal(number, signal.default_int_handler) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _cases(wish: Wish) -> list[Case]:
    wanted = list(wish.scenarios) or list(TOUR)
    _check_names("scenario", (*wanted, *wish.only), (*SCENARIOS, SUITE))
    if SUITE in wanted:
        # Every part of it has the raw figures beside it, which floors are computed from.
        wanted = ["raw", *wish.only] if wish.only else list(SCENARIOS)
    elif wish.only:
        raise InvalidArgument(reason="--only names parts of the suite; say mbctl bench suite")
    # In the order of the catalogue, so that the machine's figures come first.
    return [case for name, cases in SCENARIOS.items() if name in wanted for case in cases()]


def _seconds(wish: Wish, *, is_suite: bool) -> float:
    if is_suite:
        return _SUITE_SECONDS
    return 1.0 if wish.scenarios else _TOUR_SECONDS


def _check_size(size: int | None) -> None:
    if size is not None and not HEAD <= size <= LIMITS.message_bytes:
        raise InvalidArgument(reason=f"--size is {HEAD} bytes to 1 MiB here, not {size}")


def _check_names(kind: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise InvalidArgument(
                reason=f"there is no {kind} {name!r}; there are {', '.join(known)}"
            )


def _adapted(case: Case, wish: Wish) -> Case:
    """A case with the settings that were asked for in place of its own."""
    if case.on == "machine":
        return case
    changes = {"batch": wish.batch, "durability": wish.durability}
    given = {name: value for name, value in changes.items() if value is not None}
    settings = msgspec.structs.replace(case.settings, **given)
    content = case.content
    if wish.size is not None:
        content = msgspec.structs.replace(content, size=wish.size)
    return msgspec.structs.replace(case, settings=settings, content=content)
