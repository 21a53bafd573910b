"""The engines that the conformance tests run against."""

from collections.abc import Iterator

import pytest
from engine_bench import Bench
from engine_client import Client, session_id
from engine_drivers import ENGINES


@pytest.fixture(params=ENGINES, ids=lambda name: name.replace(" ", "-"))
def new_client(request: pytest.FixtureRequest) -> Iterator[object]:
    """Makes clients of new engines, with the limits given, and closes them."""
    made = []

    def make(**options: object) -> Client:
        made.append(Client(ENGINES[request.param](**options)))
        return made[-1]

    yield make
    for client in made:
        client.driver.close()


@pytest.fixture
def client(new_client) -> Client:
    """A client of a new engine that has one topic, ``orders``, and nothing else."""
    client = new_client()
    client.create_topic("orders")
    return client


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def held(bench: Bench) -> Bench:
    """One whose commits wait from now on."""
    bench.client.driver.call("register_publisher", session_id(b"session"))
    bench.client.sequences[b"session"] = 0
    bench.journal.hold = True
    return bench
