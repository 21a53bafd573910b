"""The engines that the conformance tests run against."""

from collections.abc import Iterator

import pytest
from engine_bench import Bench
from engine_client import Client, Make, Restarting, session_id
from engine_drivers import DURABLE_ENGINES, ENGINES, Factory


def params_of(engines: dict[str, Factory]) -> list[object]:
    """The engines as parameters; those that differ least from another are left to the slow run."""
    marks = {name: pytest.mark.slow for name in ("slow journal", "disk")}
    return [
        pytest.param(name, id=name.replace(" ", "-"), marks=marks.get(name, ())) for name in engines
    ]


@pytest.fixture(params=params_of(ENGINES))
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


@pytest.fixture(params=params_of(DURABLE_ENGINES))
def engine(request: pytest.FixtureRequest) -> Factory:
    """An engine that promises to be durable."""
    return DURABLE_ENGINES[request.param]


@pytest.fixture(params=[False, True], ids=["closed", "killed"])
def make(engine: Factory, request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes clients of new durable engines that have one topic, ``orders``, and closes them."""
    made = []

    def make(**options: object) -> Restarting:
        client = Restarting(engine(**options))
        assert "durable" in client.driver.capabilities
        client.crash = request.param
        client.create_topic("orders")
        made.append(client)
        return client

    yield make
    for client in made:
        client.driver.close()


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
