"""Every scenario, end to end, with few messages: it measures, and nothing is lost."""

from collections.abc import Iterator

import msgspec
import pytest

from mbctl.bench.cases import Case, Trial
from mbctl.bench.catalogue import SCENARIOS
from mbctl.bench.figures import Measured
from mbctl.bench.running import MACHINE, Plan, Runner, faults_in
from mbctl.bench.session import Session, Wish
from mbctl.bench.stage import Stage
from mbctl.bench.systems.registry import system

# One of each kind; the others differ by how many there are of something.
QUICK = (
    *("raw.stream", "raw.ping-pong", "publish", "publish.each", "end-to-end", "fan-out.durable"),
    *("fan-in", "sizes.16384", "latency.ack", "latency.delivery", "durable.64", "follow"),
    *("keys.headers.each", "start-up", "memory.durable", "recovery", "reclaim"),
    *("backlog.live", "topics.10", "subscriptions.10", "connections.idle.100"),
    "connections.busy.100",
)
# Where nobody reads.
UNREAD = (
    *("raw.", "publish", "durable", "latency.ack", "start-up", "memory"),
    "connections.busy",
)
CASES = {case.name: case for cases in SCENARIOS.values() for case in cases()}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """Servers and workers for all of them."""
    with Stage() as stage:
        yield stage


def check(stage: Stage, case: Case, seconds: float = 0.02) -> None:
    """Run a case once and look at what it says."""
    name = MACHINE if case.on == "machine" else "mbctl"
    measured = case.measure(Trial(stage, name, case, seconds))
    assert measured.faults == []
    assert measured.value > 0
    if case.unit == "µs":
        assert min(measured.nanoseconds) <= measured.value * 1e3 <= max(measured.nanoseconds)
        assert len(measured.nanoseconds) == measured.messages
    elif case.on != "machine":
        assert measured.messages > 0
    is_read = not case.name.startswith(UNREAD)
    assert (measured.compared > 0) == is_read


@pytest.mark.parametrize("name", QUICK)
def test_case_measures_and_loses_nothing(name: str, stage: Stage) -> None:
    check(stage, CASES[name])


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", sorted(set(CASES) - set(QUICK)))
def test_every_other_case_measures_and_loses_nothing(name: str, stage: Stage) -> None:
    check(stage, CASES[name])


def test_names_of_cases_are_theirs_alone() -> None:
    assert len(CASES) == sum(len(cases()) for cases in SCENARIOS.values())


def test_numbered_messages_are_looked_at_by_themselves() -> None:
    runner = Runner(
        Plan(cases=[CASES["end-to-end"], CASES["fan-in"]], seconds=0.05, numbered=True, repeat=5),
        lambda *_: None,
    )
    runner.run()
    assert faults_in(runner.figures) == []
    assert [len(figure.values) for figure in runner.figures] == [1, 1]
    assert all(figure.messages > 1000 for figure in runner.figures)


def test_repeats_are_rounds_of_all_cases_and_what_lacks_one_is_partial() -> None:
    told: list[str] = []

    def watch(title: str, done: int, total: int) -> None:
        told.append(title)
        assert (done, total) == (len(told) - 1, 6)
        if len(told) == 4:
            raise KeyboardInterrupt

    cases = [CASES["publish"], CASES["fan-in"]]
    runner = Runner(Plan(cases=cases, seconds=0.02), watch)
    with pytest.raises(KeyboardInterrupt):
        runner.run()
    first, second = (f"{case.title}: mbctl" for case in cases)
    assert told == [first, second, first, second]
    assert [len(figure.values) for figure in runner.figures] == [2, 1]
    assert [figure.status for figure in runner.figures] == ["partial", "partial"]


def test_case_that_fails_says_so_and_the_rest_goes_on() -> None:
    broken = msgspec.structs.replace(CASES["publish"], name="broken", measure=_break)
    runner = Runner(Plan(cases=[broken, CASES["publish"]], seconds=0.02, repeat=2), lambda *_: None)
    runner.run()
    first, second = runner.figures
    assert (first.status, first.values) == ("failed", [])
    assert first.note.startswith("WorkerFailed: TypeError: unsupported operand")
    assert (second.status, len(second.values)) == ("ok", 2)


def test_a_peer_that_is_given_up_keeps_what_it_did_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mbctl.bench.running.system", lambda name: system("mbctl"))
    tried: list[str] = []

    def measure(trial: Trial) -> Measured:
        if trial.system == "redis":
            tried.append(trial.case.name)
            if trial.case.name != "good":
                raise ValueError("broken")
        return Measured(1.0)

    names = ["good", *map(str, range(4))]
    cases = [Case(name=name, title=name, unit="msg/s", measure=measure) for name in names]
    runner = Runner(Plan(cases=cases, peers=["redis"], repeat=2), lambda *_: None)
    runner.run()
    ours, theirs = runner.figures[::2], runner.figures[1::2]
    assert [(f.status, f.values) for f in ours] == [("ok", [1.0, 1.0])] * 5
    assert [(f.status, f.values) for f in theirs] == [("ok", [1.0]), *[("failed", [])] * 4]
    assert (theirs[0].ratios, theirs[-1].note) == ([1.0], "given up after 3 failures")
    assert tried == ["good", "0", "1", "2"]


def _break(trial: Trial) -> None:  # type: ignore[return]
    trial.stage.play(trial.system, [(divmod, (0,))], 10.0)


def test_wish_changes_the_settings_of_all_cases() -> None:
    wish = Wish(scenarios=["publish", "raw"], size=1000, batch=10, durability="synced")
    cases = Session(wish)._plan.cases
    ours = [case for case in cases if case.on != "machine"]
    assert {case.content.size for case in ours} == {1000}
    assert {case.settings.batch for case in ours} == {10}
    assert {case.settings.durability for case in ours} == {"synced"}
    assert len(cases) > len(ours)
