"""Random verbs on an engine with a journal on disk, crashes at random moments, and a ledger."""

import os
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from engine_world import ACTIONS, EngineWorld


def walk(seed: int, steps: int) -> Counter[str]:
    """One run of random actions and crashes; what it came across."""
    chance = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        # Groups are written at once, or always by the worker: it must not hang on a clock.
        patch.setattr("mbctl.journal.disk._INLINE_NS", chance.choice([-1, 1 << 62]))
        world = EngineWorld(chance)
        for action in chance.choices(list(ACTIONS), list(ACTIONS.values()), k=steps):
            action(world)
        world.drain()
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
            error.add_note(f"replay: {replay} scripts/test tests/journal/test_journal_model.py")
            raise
    return seen


def seeds(count: int) -> Sequence[int]:
    """The one of MBCTL_MODEL_SEED, or with MBCTL_MODEL_EXPLORE others at every run."""
    asked = os.environ.get("MBCTL_MODEL_SEED")
    if asked is not None:
        return [int(asked)]
    first = random.randrange(1 << 32) if os.environ.get("MBCTL_MODEL_EXPLORE") else 1_871_203
    return range(first, first + count)


def test_what_was_answered_holds_over_crashes() -> None:
    seen = walk_many(seeds(60), 200)
    if "MBCTL_MODEL_SEED" in os.environ:
        return
    for what in (
        *("crash in pwritev", "crash in fdatasync", "crash in fsync", "crash in rename"),
        *("crash in unlink", "crash in allocate", "crash in truncate", "crash while it starts"),
        *("clean restart", "stored without an answer", "reclaimed", "refused send"),
        *("retry of what is open", "retry of what is answered", "delivered", "acknowledged"),
    ):
        assert seen[what], what


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_was_answered_holds_over_many_crashes() -> None:
    walk_many(seeds(150), 250)
