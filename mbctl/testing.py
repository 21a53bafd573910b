"""The pytest plugin: the fixture ``mbctl_server``, a fresh broker for each test.

Every run of pytest in an environment that has mbctl imports this module, so it imports
nothing of mbctl until the fixture is used.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mbctl import Server


@pytest.fixture
def mbctl_server() -> Iterator["Server"]:
    """A fresh broker in memory; ``mbctl_server.address`` is where it listens."""
    from mbctl import Server

    with Server() as server:
        yield server
