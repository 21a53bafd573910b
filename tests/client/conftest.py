"""What the tests of the client share: a publisher and a proxy that can be cut."""

from collections.abc import Iterator

import pytest
from cutting_proxy import CuttingProxy

from mbctl import Publisher


@pytest.fixture
def publisher(server: str) -> Iterator[Publisher]:
    """A publisher at the shared server."""
    with Publisher(server) as publisher:
        yield publisher


@pytest.fixture
def proxy(server: str) -> Iterator[CuttingProxy]:
    """A proxy before the shared server."""
    proxy = CuttingProxy(server)
    yield proxy
    proxy.close()
