"""What the process of a server does with memory."""

import pytest

from mbctl.server.memory import unset_memory


@pytest.mark.parametrize("size", [0, 1, 4096, 1_000_000])
def test_unset_memory_can_be_filled(size: int) -> None:
    memory = unset_memory(size)
    assert type(memory) is bytearray
    assert len(memory) == size
    memoryview(memory)[:] = b"x" * size
    assert memory == b"x" * size
    memory += b"more"
    assert len(memory) == size + 4
