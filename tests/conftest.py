"""What all tests may use: real servers, and names that no other test has."""

import signal
from collections.abc import Callable, Iterator
from itertools import count

import pytest
from broker_process import BrokerProcess
from hypothesis import settings

# Whoever starts the tests in the background has them ignore Ctrl-C, and all processes they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine makes an example slow, not wrong.
settings.register_profile("patient", parent=settings.get_profile("default"), deadline=None)
if settings.get_current_profile_name() == "default":
    settings.load_profile("patient")


@pytest.fixture(scope="session", autouse=True)
def _data_of_nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep every server that is not told where its data is away from the user's own."""
    data = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MBCTL_DATA", str(data / "mbctl"))
        # For those that run without any of our variables.
        patch.setenv("XDG_DATA_HOME", str(data))
        # And away from the contexts of whoever runs the tests.
        patch.setenv("XDG_CONFIG_HOME", str(data / "config"))
        yield


@pytest.fixture(scope="session")
def shared_broker() -> Iterator[BrokerProcess]:
    """A server that many tests share; topics keep them apart."""
    broker = BrokerProcess()
    yield broker
    broker.check()


@pytest.fixture
def server(shared_broker: BrokerProcess) -> str:
    """The address of the shared server."""
    return shared_broker.address


@pytest.fixture
def start_broker() -> Iterator[Callable[..., BrokerProcess]]:
    """Start a server of the test's own: ``start_broker(limits=Limits(...), port=0)``."""
    started: list[BrokerProcess] = []

    def start(*options: str, **settings: object) -> BrokerProcess:
        started.append(BrokerProcess(*options, **settings))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for broker in started:
        broker.check()


_numbers = count(1)


@pytest.fixture
def topic() -> str:
    """The name of a topic that no other test uses, and that does not exist yet."""
    return f"topic-{next(_numbers)}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give slow tests ten minutes, unless they say otherwise themselves."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(600))
