"""What the tests of the semantics share: brokers in memory and on disk, seen through both faces.

A test is written once, for the sync face, and takes what it needs from its ``world``. By
default half of the product is run: sync with memory, asyncio with disk; the rest is slow.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import blocking_aio
import pytest
from semantic_worlds import Broker, World

WORLDS = [
    "sync-memory",
    "aio-disk",
    pytest.param("sync-disk", marks=pytest.mark.slow),
    pytest.param("aio-memory", marks=pytest.mark.slow),
]
DURABLE_WORLDS = ["sync-disk", pytest.param("aio-disk", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Broker]]:
    """The brokers of a module: one for each store, started when it is first asked for."""
    started: dict[str, Broker] = {}

    def broker(store: str) -> Broker:
        if store not in started:
            data = tmp_path_factory.mktemp("data") if store == "disk" else None
            started[store] = Broker(data)
        return started[store]

    yield broker
    for each in started.values():
        each.stop()


def _seen(name: str, brokers: Callable[[str], Broker]) -> Iterator[World]:
    face, store = name.split("-")
    with World(face, brokers(store)) as world:
        yield world
    if face == "aio":
        # Nothing goes on in the background.
        assert blocking_aio.tasks() == 0


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, brokers: Callable[[str], Broker]) -> Iterator[World]:
    """A broker that the tests of a module share, and a face to see it through."""
    yield from _seen(request.param, brokers)


@pytest.fixture(params=DURABLE_WORLDS)
def durable(request: pytest.FixtureRequest, brokers: Callable[[str], Broker]) -> Iterator[World]:
    """The same on disk alone: it may be restarted."""
    yield from _seen(request.param, brokers)


@pytest.fixture(params=WORLDS)
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Start a broker for this test alone: ``own(limits=Limits(...))``."""
    face, store = request.param.split("-")
    worlds: list[World] = []

    def start(**options: object) -> World:
        broker = Broker(tmp_path / "data" if store == "disk" else None, **options)
        worlds.append(World(face, broker))
        return worlds[-1]

    yield start
    for world in worlds:
        world.close()
        world.broker.stop()
