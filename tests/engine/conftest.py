"""The engines that the conformance tests run against."""

from collections.abc import Callable, Iterator

import pytest
from engine_bench import Bench
from engine_client import Client, Make, Restarting, session_id
from engine_drivers import DURABLE_ENGINES, ENGINES, Factory
from jetstream_driver import driver_of

from mbctl.cluster.processes import Cluster


def params_of(engines: dict[str, Factory]) -> list[object]:
    """The engines as parameters; those that differ least from another are left to the slow run."""
    marks = {name: pytest.mark.slow for name in ("slow journal", "disk")}
    return [
        pytest.param(name, id=name.replace(" ", "-"), marks=marks.get(name, ())) for name in engines
    ]


# A cluster of one node and one of three, started once for all tests that want it.
CLUSTERS = {"jetstream on one node": 1, "jetstream on three nodes": 3}


# What replication may change: the rest is the same code, and runs on one node.
REPLICATED = {
    *("TestPublishing", "TestVisibility", "TestAcknowledging", "TestDeadLetters", "TestSeeking"),
}
# A cluster has the time of its nodes, and is tested in ``test_engine_jetstream_ages``.
TIMED = "test_engine_retention.py"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what a cluster of three says no more about than a single node."""

    def is_wanted(item: pytest.Item) -> bool:
        of_test = getattr(item, "callspec", None)
        nodes = CLUSTERS.get(of_test.params.get("new_client")) if of_test else None
        if nodes is None:
            return True
        of = item.parent.name if item.parent is not None else ""
        return item.path.name != TIMED and (nodes == 1 or of in REPLICATED)

    config.hook.pytest_deselected(items=[item for item in items if not is_wanted(item)])
    items[:] = [item for item in items if is_wanted(item)]


@pytest.fixture(scope="session")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], str]]:
    """The address of a cluster of so many nodes."""
    started: dict[int, Cluster] = {}

    def address(nodes: int) -> str:
        if nodes not in started:
            started[nodes] = Cluster(tmp_path_factory.mktemp("cluster"))
            started[nodes].start(nodes, sync="2m")
        return started[nodes].url

    yield address
    for cluster in started.values():
        cluster.stop()


@pytest.fixture(
    params=[
        *params_of(ENGINES),
        *(
            pytest.param(name, id=name.replace(" ", "-"), marks=pytest.mark.slow)
            for name in CLUSTERS
        ),
    ]
)
def new_client(request: pytest.FixtureRequest, clusters: Callable[[int], str]) -> Iterator[object]:
    """Makes clients of new engines, with the limits given, and closes them."""
    made = []
    nodes = CLUSTERS.get(request.param)
    new_driver = driver_of(clusters(nodes), nodes) if nodes else ENGINES[request.param]

    def make(**options: object) -> Client:
        made.append(Client(new_driver(**options)))
        return made[-1]

    yield make
    for client in made:
        client.driver.close()
        if nodes:
            client.driver.shut()


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
