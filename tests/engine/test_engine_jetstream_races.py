"""What happens at a jetstream engine while something else is under way, or is refused."""

from collections.abc import Callable, Iterator

import pytest
from engine_client import Client
from jetstream_driver import JetStreamDriver

from mbctl.model import AtTime

pytestmark = pytest.mark.slow


@pytest.fixture
def client(clusters: Callable[[int], str]) -> Iterator[Client]:
    client = Client(JetStreamDriver(clusters(1), 1))
    yield client
    client.driver.shut()


def test_message_that_looks_like_an_error_is_found_by_its_time(client: Client) -> None:
    client.create_topic("orders")
    client.reader()
    sent = client.send(b'{"level": "error"}')
    assert client.seek(AtTime(0)).offset == sent.offset
