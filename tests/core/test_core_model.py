"""core.Broker against the naive model: every verb in any order, every answer compared."""

import os
import random
from collections.abc import Sequence
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from model_comparison import ACTIONS, Comparison

T = TypeVar("T")


class Chance:
    """A Choice by a seeded generator."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def among(self, values: Sequence[T]) -> T:
        return self.random.choice(values)

    def number(self, low: int, high: int) -> int:
        return self.random.randint(low, high)


class Drawn:
    """A Choice by Hypothesis, which makes failures small."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data

    def among(self, values: Sequence[T]) -> T:
        return self.data.draw(st.sampled_from(values))

    def number(self, low: int, high: int) -> int:
        return self.data.draw(st.integers(low, high))


def walk(seed: int, steps: int) -> dict[str, int]:
    """One run of random actions; what it came across."""
    chance, comparison = Chance(seed), Comparison()
    actions, weights = list(ACTIONS), list(ACTIONS.values())
    comparison.begin(chance)
    for _ in range(steps):
        chance.random.choices(actions, weights)[0](comparison, chance)
        comparison.check()
    comparison.end()
    return comparison.seen


def walk_many(seeds: Sequence[int], steps: int) -> dict[str, int]:
    """Many runs; names the seed of one that fails."""
    steps = int(os.environ.get("MBCTL_MODEL_STEPS", steps))
    seen: dict[str, int] = {}
    for seed in seeds:
        try:
            found = walk(seed, steps)
        except BaseException as error:
            replay = f"MBCTL_MODEL_SEED={seed} MBCTL_MODEL_STEPS={steps}"
            error.add_note(f"replay: {replay} scripts/test tests/core/test_core_model.py")
            raise
        for what, count in found.items():
            seen[what] = seen.get(what, 0) + count
    return seen


def seeds(count: int) -> Sequence[int]:
    """The one of MBCTL_MODEL_SEED, or with MBCTL_MODEL_EXPLORE others at every run."""
    asked = os.environ.get("MBCTL_MODEL_SEED")
    if asked is not None:
        return [int(asked)]
    first = random.randrange(1 << 32) if os.environ.get("MBCTL_MODEL_EXPLORE") else 3076946092
    return range(first, first + count)


@pytest.fixture(scope="module")
def seen() -> dict[str, int]:
    """What some runs came across, all of which agreed."""
    return walk_many(seeds(80), 150)


def test_random_walks_agree_with_the_naive_model(seen: dict[str, int]) -> None:
    assert seen


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_long_random_walks_agree_with_the_naive_model() -> None:
    walk_many(seeds(150), 300)


def test_random_walks_come_across_everything_worth_testing(seen: dict[str, int]) -> None:
    never = [what for what, count in seen.items() if count == 0]
    assert not never
    for what in (
        "InvalidArgument",
        "LimitExceeded",
        "NotSubscribed",
        "OffsetOutOfRange",
        "OutcomeUnknown",
        "ProtocolError",
        "SubscriptionNotFound",
        "TopicExists",
        "TopicFull",
        "TopicNotFound",
        "acks are forgotten",
        "batches moved",
        "dead letter",
        "dropped by hand",
        "exhausted",
        "gaps restart",
        "lost a part",
        "lost",
        "peeked",
        "purged",
        "redelivered",
        "released by hand",
        "retained is given up",
        "sought what is gone",
        "sought",
        "taken back",
        "trimmed: dropped",
        "trimmed: expired",
        "trimmed: purged",
        "trimmed: read",
        "void piece",
    ):
        assert seen.get(what), what


class BrokerComparison(RuleBasedStateMachine):
    """The same actions, chosen and made small by Hypothesis."""

    def __init__(self) -> None:
        super().__init__()
        self.comparison = Comparison()

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.comparison.begin(Drawn(data))

    @rule(data=st.data(), action=st.sampled_from([a for a, n in ACTIONS.items() for _ in range(n)]))
    def act(self, data: st.DataObject, action: Any) -> None:
        action(self.comparison, Drawn(data))

    @invariant()
    def agree(self) -> None:
        self.comparison.check()

    def teardown(self) -> None:
        self.comparison.end()


# Hypothesis takes minutes to make a failure small.
TestBrokerComparison = pytest.mark.timeout(600)(BrokerComparison.TestCase)
TestBrokerComparison.settings = settings(
    max_examples=30,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.slow
@pytest.mark.timeout(1200)
class TestBrokerComparisonAtLength(BrokerComparison.TestCase):  # type: ignore[misc, name-defined]
    settings = settings(
        max_examples=200,
        stateful_step_count=60,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
