"""A leader and a server are killed under load; the ledger must agree."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster_world import LOAD, World, break_leader, break_reader

pytestmark = pytest.mark.slow


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    try:
        yield world
    finally:
        world.close()


@pytest.mark.timeout(120)
def test_faults_lose_nothing_and_are_over_soon(
    world: World, record_property: Callable[[str, object], None]
) -> None:
    for fault in (break_leader, break_reader):
        world.ledger.wait_for(LOAD)
        fault(world)
    world.ledger.wait_for(LOAD)
    world.end()
    for what, value in world.figures().items():
        record_property(what, value)
