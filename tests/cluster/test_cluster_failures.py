"""A leader and a server are killed under load, and most of the nodes; the ledger must agree."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from cluster_world import LOAD, PATIENCE_S, World

from mbctl import Publisher
from mbctl.errors import MbctlError

pytestmark = pytest.mark.slow


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    try:
        yield world
    finally:
        world.close()


@pytest.mark.timeout(120)
def test_faults_lose_nothing_repeat_nothing_keep_the_order_and_are_over_soon(
    world: World, record_property: Callable[[str, object], None]
) -> None:
    for name in ("leader of the stream killed", "follower paused", "server of the reader killed"):
        fault = world.suffer(name)
        record_property(name, msgspec.to_builtins(fault))
    no_send_is_acknowledged_without_a_majority(world)
    world.end()


def no_send_is_acknowledged_without_a_majority(world: World) -> None:
    address = world.servers[0].address
    with Publisher(address) as publisher:
        publisher.create_topic("asked")
    with Publisher(address, timeout=0.5) as publisher:
        with world.without_majority():
            with pytest.raises(MbctlError):
                publisher.send("asked", "what cannot be stored")
            sent = len(world.ledger.sent)
            with pytest.raises(MbctlError):
                publisher.send("asked", "nor can this")
            assert len(world.ledger.sent) == sent
        begun = time.monotonic()
        world.ledger.wait_for(LOAD)
        assert time.monotonic() - begun < PATIENCE_S
