"""The encoders that copy no batch give the bytes that the plain one gives."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mbctl import batch as batches
from mbctl.errors import TopicNotFound
from mbctl.wire import messages as wire

ids = st.integers(1, 2**63 - 1)
whole = st.integers(0, 2**63 - 1)
packed_batches = st.lists(st.binary(max_size=40), min_size=1, max_size=5).map(batches.encode)
pieces = st.tuples(whole, whole, whole, packed_batches)


@settings(deadline=None)
@given(ids, st.text(max_size=300), whole, whole, packed_batches)
def test_encode_send_gives_the_plain_encoding(
    id_: int, topic: str, sequence: int, age_ms: int, batch: bytes
) -> None:
    message = wire.Send(id_, topic, sequence, age_ms, msgspec.Raw(batch))
    buffers = wire.encode_send(id_, topic, sequence, age_ms, batch)
    assert b"".join(buffers) == wire.encode(message)


def test_encode_send_does_not_copy_the_batch() -> None:
    batch = batches.encode([b"x" * 100_000])
    assert wire.encode_send(1, "orders", 1, 0, batch)[1] is batch


def plainly_pulled(
    id_: int, topic_id: int, skipped: int, parts: list[tuple[int, int, int, bytes]]
) -> bytes:
    told = [wire.Piece(a, b, c, msgspec.Raw(batch)) for a, b, c, batch in parts]
    return wire.encode(wire.Pulled(id_, topic_id, skipped, told))


@settings(deadline=None)
@given(ids, whole, whole, st.lists(pieces, max_size=20))
def test_encode_pulled_gives_the_plain_encoding(
    id_: int, topic_id: int, skipped: int, parts: list[tuple[int, int, int, bytes]]
) -> None:
    buffers = wire.encode_pulled(id_, topic_id, skipped, parts)
    assert b"".join(buffers) == plainly_pulled(id_, topic_id, skipped, parts)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 65_535, 65_536])
def test_encode_pulled_is_right_at_each_form_of_the_count(count: int) -> None:
    parts = [(7, 8, 1, batches.encode([b"x"]))] * count
    assert b"".join(wire.encode_pulled(1, 2, 3, parts)) == plainly_pulled(1, 2, 3, parts)


@pytest.mark.parametrize("buffer", [bytes, bytearray, memoryview, msgspec.Raw])
def test_encode_pulled_takes_any_buffer_and_does_not_copy_it(buffer: type) -> None:
    batch = buffer(batches.encode([b"x" * 300]))
    buffers = wire.encode_pulled(1, 2, 0, [(0, 9, 1, batch)])
    assert buffers[-1] is batch
    assert b"".join(buffers) == plainly_pulled(1, 2, 0, [(0, 9, 1, bytes(batch))])


def test_error_message_carries_code_and_details() -> None:
    reply = wire.Error.of(7, TopicNotFound(topic="orders"))
    assert reply == wire.Error(7, "TopicNotFound", {"topic": "orders"})
