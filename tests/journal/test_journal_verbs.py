"""All verbs at random, with crashes: what comes back is what the records said."""

import os
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from verbs_world import ACTIONS, VerbsWorld


def walk(seed: int, steps: int) -> Counter[str]:
    """One run of random actions and crashes; what it came across."""
    chance = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        # Groups are written at once, or always by the worker: it must not hang on a clock.
        patch.setattr("mbctl.journal.disk._INLINE_NS", chance.choice([-1, 1 << 62]))
        world = VerbsWorld(chance)
        for action in chance.choices(list(ACTIONS), list(ACTIONS.values()), k=steps):
            action(world)
        world.disk.crash_in = None
        world.check()
        world.restart()
        world.check()
    return world.seen


def walk_many(seeds: Sequence[int], steps: int) -> Counter[str]:
    """Many runs; names the seed of one that fails."""
    steps = int(os.environ.get("MBCTL_MODEL_STEPS", steps))
    seen: Counter[str] = Counter()
    for seed in seeds:
        try:
            seen += walk(seed, steps)
        except BaseException as error:
            replay = f"MBCTL_MODEL_SEED={seed} MBCTL_MODEL_STEPS={steps}"
            error.add_note(f"replay: {replay} scripts/test tests/journal/test_journal_verbs.py")
            raise
    return seen


def seeds(count: int) -> Sequence[int]:
    """The one of MBCTL_MODEL_SEED, or with MBCTL_MODEL_EXPLORE others at every run."""
    asked = os.environ.get("MBCTL_MODEL_SEED")
    if asked is not None:
        return [int(asked)]
    first = random.randrange(1 << 32) if os.environ.get("MBCTL_MODEL_EXPLORE") else 7_013
    return range(first, first + count)


def test_what_comes_back_is_what_was_recorded() -> None:
    seen = walk_many(seeds(12), 200)
    if "MBCTL_MODEL_SEED" in os.environ:
        return
    for what in (
        *("purge_topic", "seek", "release_parked", "drop_parked", "peek", "nack", "extend"),
        *("subscribe refused", "send refused", "compared at rest", "clean restart"),
        *("dead letter", "parked", "counted", "dropped", "expired"),
        *("backup", "backup read"),
        *("lost records", "crash while it starts", "crash in pwritev", "crash in fdatasync"),
    ):
        assert seen[what], what


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_comes_back_is_what_was_recorded_many_times() -> None:
    walk_many(seeds(60), 250)
