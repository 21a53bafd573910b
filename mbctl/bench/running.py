"""Runs cases on systems, one beside the other, and gathers what they say."""

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from mbctl.bench.cases import Case, Trial
from mbctl.bench.figures import Figure, Results
from mbctl.bench.stage import Stage
from mbctl.bench.systems.interface import System, Unavailable
from mbctl.bench.systems.registry import PEERS, system

MACHINE = "machine"

# A peer that has failed so often is not tried again: each failure may take as long as a time limit.
_FAILURES_MAX = 3


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is run, and how often."""

    cases: list[Case]
    peers: list[str] = []
    repeat: int = 3
    seconds: float = 1.0
    numbered: bool = False
    """Whether every message is numbered and looked at by itself."""
    directory: Path | None = None
    seconds_max: float = math.inf
    """When so much time is gone, what is left is measured once."""


Watch = Callable[[str, int, int], None]
"""Is told what is measured now, and how many runs are done of how many."""


class Runner:
    """Runs a plan. What it has found so far is in ``figures``, also when it is interrupted."""

    def __init__(self, plan: Plan, watch: Watch) -> None:
        self._plan = plan
        self._watch = watch
        self.figures: list[Figure] = []
        self._versions: dict[str, str] = {}
        """Of the systems that can be measured."""
        self._failures: Counter[str] = Counter()
        self._by_cases: dict[str, dict[str, Figure]] = {}
        """Those of the cases that have begun, by systems."""
        self._samples: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        """By cases and systems."""
        self._look_for_systems()
        self._done = 0
        self._total = sum(len(self._systems(case)) * self._repeats(case) for case in plan.cases)
        self._began = time.monotonic()

    def run(self) -> None:
        """Measure everything; what fails is said in its figure, and the rest goes on.

        In rounds, each of all the cases: where a machine is slower for a while, it is so for one
        repeat of many figures, and not for all repeats of one.
        """
        cases = self._plan.cases
        with Stage(self._plan.directory) as stage:
            try:
                for number in range(max(map(self._repeats, cases), default=0)):
                    for case in cases:
                        if number < self._repeats(case):
                            self._run_case(stage, case, number)
            except KeyboardInterrupt:
                for case in cases:
                    self._note_interrupted(case)
                raise

    def _look_for_systems(self) -> None:
        for name in ("mbctl", *self._plan.peers):
            figure = Figure(name=name, title=f"all of {name}", system=name, unit="")
            if _excused(figure, partial(self._note_version, name)):
                continue
            self.figures.append(figure)

    def _note_version(self, name: str) -> None:
        self._versions[name] = system(name).version()

    def _numbered(self, case: Case) -> Case:
        if not self._plan.numbered:
            return case
        content = msgspec.structs.replace(case.content, numbered=True)
        return msgspec.structs.replace(case, content=content)

    def _systems(self, case: Case) -> list[str]:
        if case.on == "machine":
            return [MACHINE]
        if case.on == "ours":
            return ["mbctl"]
        return [n for n in self._versions if n == "mbctl" or _is_able(system(n), case)]

    def _repeats(self, case: Case) -> int:
        return 1 if self._plan.numbered else min(self._plan.repeat, case.repeat_max)

    def _run_case(self, stage: Stage, case: Case, number: int) -> None:
        """One repeat of a case, on one system after the other."""
        figures = self._figures_of(case)
        is_late = number and time.monotonic() - self._began > self._plan.seconds_max
        for name, figure in figures.items():
            self._watch(f"{case.title}: {name}", self._done, self._total)
            is_lost = name in PEERS and self._failures[name] >= _FAILURES_MAX
            if is_lost and not figure.values:
                figure.status, figure.note = "failed", f"given up after {_FAILURES_MAX} failures"
            elif figure.status == "ok" and not is_lost and not is_late:
                trial = Trial(stage, name, self._numbered(case), self._plan.seconds)
                self._run_once(trial, figure)
            self._done += 1
        if not is_late:
            _note_ratios(figures)

    def _figures_of(self, case: Case) -> dict[str, Figure]:
        """By systems; without any values where it is asked for them the first time."""
        found = self._by_cases.get(case.name)
        if found is None:
            found = {n: _figure(case, n, self._versions.get(n, "")) for n in self._systems(case)}
            self._by_cases[case.name] = found
            self.figures.extend(found.values())
        return found

    def _note_interrupted(self, case: Case) -> None:
        for figure in self._by_cases.get(case.name, {}).values():
            if figure.status == "ok" and len(figure.values) < self._repeats(case):
                figure.status = "partial"

    def _run_once(self, trial: Trial, figure: Figure) -> None:
        if not _excused(figure, partial(self._measure, trial, figure)):
            self._failures[trial.system] += 1
            # It begins anew, and if it does not even stop, the figure says that.
            _excused(figure, partial(trial.stage.forget, trial.system))

    def _measure(self, trial: Trial, figure: Figure) -> None:
        # Memory that a process gets for the first time is made by the system, on a virtual machine
        # slower than messages come. What is measured is a server that has been at work.
        before = trial.case.measure(trial) if trial.case.warms_up else None
        measured = trial.case.measure(trial)
        if before is not None:
            measured.faults += before.faults
        figure.add(measured)
        if measured.nanoseconds:
            samples = self._samples[trial.case.name, trial.system]
            samples += measured.nanoseconds
            figure.describe(samples)


def _excused(figure: Figure, act: Callable[[], None]) -> bool:
    """Do something, and let the figure say why it failed; whether it did not."""
    try:
        act()
    except Unavailable as missing:
        figure.status, figure.note = "unavailable", str(missing)
    except Exception as error:
        # Whatever a peer or its client raises: the others are measured all the same.
        figure.status, figure.note = "failed", f"{type(error).__name__}: {error}"
    return figure.status == "ok"


def _is_able(peer: System, case: Case) -> bool:
    is_fit = peer.stores or case.on != "stores"
    return is_fit and case.settings.durability in peer.durabilities


def _figure(case: Case, name: str, version: str) -> Figure:
    return Figure(
        name=case.name,
        title=case.title,
        system=name,
        version=version,
        unit=case.unit,
        better=case.better,
        durability=case.settings.durability,
        settings="" if name == MACHINE else system(name).describe(case.settings),
        x=case.x,
    )


def _note_ratios(figures: dict[str, Figure]) -> None:
    """Set ours beside theirs, of the round that has just been run."""
    ours = figures.get("mbctl")
    if ours is None or ours.status != "ok":
        return
    for name, figure in figures.items():
        # One of a system that was given up has nothing of this round.
        is_whole = figure.status == "ok" and len(figure.values) == len(ours.values)
        if name != "mbctl" and is_whole and figure.values[-1] and ours.values[-1]:
            ratio = ours.values[-1] / figure.values[-1]
            figure.ratios.append(ratio if figure.better == "more" else 1 / ratio)


def results_of(runner: Runner, command: str, began: float, *, partial: bool) -> Results:
    """All that was found. The machine is to be added, as it was before."""
    began_text = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began))
    for figure in runner.figures:
        figure.began = began_text
    return Results(
        command=command,
        began=began_text,
        seconds=round(time.time() - began, 1),
        partial=partial,
        figures=runner.figures,
    )


def faults_in(figures: Sequence[Figure]) -> list[str]:
    """What was lost, doubled, changed or out of order, with where."""
    return [f"{f.name}, {f.system}: {fault}" for f in figures for fault in f.faults]
