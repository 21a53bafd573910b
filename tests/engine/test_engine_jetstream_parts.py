"""The parts of the jetstream engine that need no cluster."""

import pytest

from mbctl import batch as batches
from mbctl.engine.jetstream import names
from mbctl.engine.jetstream.address import parse_address
from mbctl.engine.jetstream.entries import BatchEntry
from mbctl.engine.jetstream.fetching import delivery_of
from mbctl.engine.jetstream.held import DELAYED, LEASED, NEW, PARKED, READY, Held
from mbctl.engine.jetstream.options import limits_within, note_on
from mbctl.engine.jetstream.topics import time_ns
from mbctl.errors import InvalidArgument
from mbctl.model import MIB, Limits


def held(count: int = 10, delivered: int = 1) -> Held:
    body = batches.encode([b"x"] * count)
    return Held(
        7, count=count, body=body, timestamp=0, delivered=delivered, reply="", place=1, now_ns=0
    )


@pytest.mark.parametrize("name", ["orders", "a.b.c", "_x-1", "x" * 200])
def test_name_survives_its_encoding_and_has_nothing_that_separates(name: str) -> None:
    stream, consumer = names.stream_of(name, 2**62), names.consumer_of(name, 2**62, "ab" * 8)
    assert names.topic_of(stream) == name
    assert (names.subscriber_of(consumer), names.mark_of(consumer)) == (name, "ab" * 8)
    assert "." not in stream + consumer
    assert max(len(stream), len(consumer)) <= 255


@pytest.mark.parametrize("consumer", [names.consumer_of("~a1b2", 5), "watcher", "a~5", "a~b~c~d"])
def test_consumer_of_nobody_durable_has_no_mark(consumer: str) -> None:
    assert names.mark_of(consumer) == ""


def test_offset_is_a_sequence_and_an_index_and_rises() -> None:
    offset = names.offset_of(3, 65_535)
    assert (names.sequence_of(offset), names.index_of(offset)) == (3, 65_535)
    assert names.offset_of(4) == offset + 1
    assert names.offset_of(names.SEQUENCE_MAX, 65_535) == 2**63 - 1


def test_ranges_of_offsets_are_cut_to_a_batch() -> None:
    base = names.offset_of(7)
    assert names.within([(base - 5, base + 2), (base + 8, base + 99)], 7, 10) == [(0, 2), (8, 10)]


@pytest.mark.parametrize("prefix", ["$JS.ACK.", "$JS.ACK.hub.ACCOUNT."])
def test_delivery_is_read_from_where_it_is_acknowledged(prefix: str) -> None:
    end = "" if prefix == "$JS.ACK." else ".token"
    found = delivery_of(f"{prefix}stream.consumer.2.70.9.1767225600123456789.4{end}")
    assert (found.delivered, found.sequence, found.consumer_sequence) == (2, 70, 9)
    assert (found.timestamp, found.pending) == (1767225600123456789, 4)


def test_address_names_servers_and_who_we_are() -> None:
    found = parse_address("nats://me:s%20t@n1,n2:4333?ca=a.pem&cert=c.pem&key=k.pem")
    assert found.servers == ("nats://n1:4222", "nats://n2:4333")
    assert (found.user, found.password, found.authority) == ("me", "s t", "a.pem")
    assert "s t" not in str(found)
    assert parse_address("tls://secret@[::1]:1").token == "secret"
    assert parse_address("tls://n1").is_tls


@pytest.mark.parametrize(
    "text",
    ["cluster", "http://n1", "nats://", "nats://n1:x", "nats://n1?user=x", "nats://n?cert=x"],
)
def test_address_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_address(text)


def test_part_of_a_batch_is_acknowledged_and_the_rest_is_known_again() -> None:
    one = held()
    assert one.acknowledge([(2, 4), (6, 7)], lambda part: True) == 3
    assert one.acknowledge([(2, 4)], lambda part: True) == 0
    assert one.acknowledged == [(2, 4), (6, 7)]
    entry = one.entry()
    assert entry is not None
    again = held(delivered=2)
    again.restore(entry, 5, None)
    assert again.acknowledged == [(2, 4), (6, 7)]
    assert sum(part.count for part in again.parts) == 7
    assert again.acknowledge([(0, 10)], lambda part: True) == 7
    assert again.is_done


def test_batch_that_was_delivered_as_a_whole_needs_no_entry() -> None:
    one = held()
    for part in one.parts:
        part.deliveries, part.state = 1, READY
    assert one.entry() is None
    one.acknowledge([(0, 1)], lambda part: True)
    assert one.entry() == BatchEntry(1, [(0, 1)], [(1, 10, 1)])


def test_batch_that_was_delivered_twice_has_its_count_in_an_entry() -> None:
    # Who takes it from the stream is not told how often it was delivered.
    one = held(delivered=2)
    for part in one.parts:
        part.deliveries = 2
    assert one.entry() == BatchEntry(2, [], [(0, 10, 2)])


def test_deliveries_to_a_server_that_died_do_not_make_it_too_many() -> None:
    entry = BatchEntry(1, [], [(0, 5, 1)])
    one = held(delivered=4)
    one.restore(entry, 1, 3)
    assert [(part.first, part.deliveries, part.state) for part in one.parts] == [
        (0, 2, READY),
        (5, 2, READY),
    ]
    one = held(delivered=4)
    one.restore(entry, 1, None)
    assert [part.deliveries for part in one.parts] == [3, 2]


def test_what_is_parked_stays_parked() -> None:
    one = held(delivered=3)
    one.restore(BatchEntry(2, [(0, 8)], [(8, 10, 5)], [(8, 10)]), 1, 5)
    assert [(part.first, part.next, part.state) for part in one.parts] == [(8, 10, PARKED)]
    assert one.entry() == BatchEntry(3, [(0, 8)], [(8, 10, 5)], [(8, 10)])


def test_batch_that_is_put_off_says_until_when_and_grants_nothing_before() -> None:
    one = held()
    for part in one.parts:
        part.deliveries = 1
    assert one.entry() is None
    assert one.entry(put_off_ns=99) == BatchEntry(1, [], [(0, 10, 1)], [], 99)
    one.restore(BatchEntry(2, [(0, 2)], [], [(8, 10)]), 1, None)
    one.put_off(50)
    assert [(part.first, part.state) for part in one.parts] == [(2, DELAYED), (8, PARKED)]
    assert one.next_ns() == 50


def test_parts_that_are_alike_are_joined() -> None:
    one = held()
    list(one.isolated(3, 5))
    assert len(one.parts) == 3
    one.joined()
    assert [(part.first, part.next, part.state) for part in one.parts] == [(0, 10, NEW)]
    for part in one.isolated(3, 5):
        part.state = LEASED
    one.joined()
    assert [(part.first, part.next) for part in one.parts] == [(0, 3), (3, 5), (5, 10)]


def test_limits_are_those_that_the_largest_message_leaves() -> None:
    small = limits_within(Limits(), MIB)
    assert small.message_bytes + small.key_bytes + 2 * small.headers_bytes < MIB
    assert small.frame_bytes < MIB
    assert small.pull_bytes < small.frame_bytes
    assert small.topics == 500
    large = limits_within(Limits(), 8 * MIB + 64 * 1024)
    assert (large.message_bytes, large.frame_bytes) == (MIB, 8 * MIB)


def test_note_says_what_may_be_lost() -> None:
    assert "outlives" in note_on("always", 3)
    assert "may be forgotten" in note_on("always", 1)
    assert "power cut" in note_on("2m", 3)
    assert "not known" in note_on("unknown", 3)


def test_time_of_jetstream_is_read_to_the_nanosecond() -> None:
    assert time_ns("2026-01-01T00:00:00.123456789Z") == 1767225600123456789
    assert time_ns("2026-01-01T00:00:00Z") == 1767225600000000000
