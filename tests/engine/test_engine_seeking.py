"""How every engine moves a subscription (points 3 and 11), and shows messages without one."""

import pytest
from engine_client import Client, part

from mbctl.errors import InvalidArgument, OffsetOutOfRange, SubscriptionNotFound, TopicNotFound
from mbctl.model import NS_PER_S, AtTime


@pytest.fixture
def replayed(client: Client) -> Client:
    """One whose topic keeps what was read, with ten batches of two, 10 s apart, all read."""
    client.driver.call("delete_topic", "orders")
    client.create_topic("orders", retain_age=10_000.0)
    client.reader()
    for number in range(10):
        client.send(b"%d" % number, b"%d+" % number)
        client.driver.advance(10)
    client.ack(client.pull())
    return client


def times(client: Client) -> list[int]:
    """The timestamps of the batches kept."""
    return [message.timestamp for message in client.peek("earliest")][::2]


class TestStartingAtATime:
    """Point 3: a start may be a time."""

    def test_it_begins_with_the_first_message_of_that_time_or_later(self, replayed: Client) -> None:
        at = times(replayed)[4]
        for name, ns, first in [
            ("exact", at, b"4"),
            ("before", at - 1, b"4"),
            ("after", at + 1, b"5"),
            ("long ago", 0, b"0"),
        ]:
            replayed.reader(name.encode(), name.replace(" ", "-"), start=AtTime(ns))
            assert replayed.pull(name.encode(), 1).payloads == [first]

    def test_a_time_to_come_begins_at_new(self, replayed: Client) -> None:
        replayed.reader(b"b", "late", start=AtTime(times(replayed)[-1] + 1000 * NS_PER_S))
        assert replayed.pull(b"b") == []
        replayed.send(b"new")
        assert replayed.pull(b"b").payloads == [b"new"]

    def test_in_an_empty_topic_it_begins_at_new(self, client: Client) -> None:
        client.reader(start=AtTime(0))
        client.send(b"one")
        assert client.pull().payloads == [b"one"]


class TestSeeking:
    """Point 11."""

    def test_back_counts_as_unread_again(self, replayed: Client) -> None:
        offset = replayed.peek("earliest").offsets[6]
        sought = replayed.seek(offset)
        assert (sought.offset, sought.skipped) == (offset, 0)
        replayed.check_unread(14)
        assert replayed.pull(count=1).payloads == [b"3"]

    def test_forward_counts_as_acknowledged(self, client: Client) -> None:
        client.reader()
        for number in range(5):
            client.send(b"%d" % number)
        offset = client.peek("earliest").offsets[3]
        client.seek(offset)
        assert client.pull().payloads == [b"3", b"4"]
        client.check_unread(2)
        assert client.kept() == 2

    def test_to_the_end_and_the_beginning(self, replayed: Client) -> None:
        replayed.seek("earliest")
        replayed.check_unread(20)
        replayed.seek("new")
        replayed.check_unread(0)
        assert replayed.pull() == []

    def test_to_a_time(self, replayed: Client) -> None:
        replayed.seek(AtTime(times(replayed)[7]))
        assert replayed.pull(count=1).payloads == [b"7"]

    def test_below_what_is_kept_it_goes_there_and_says_so(self, client: Client) -> None:
        client.reader()
        client.send(b"one", b"two")
        first = client.pull()
        client.ack(first)
        client.send(b"three")
        sought = client.seek(first.offsets[0])
        assert sought.offset == client.peek("earliest").offsets[0] > first.offsets[-1]
        assert sought.skipped == (2 if "counts" in client.driver.capabilities else 1)
        assert client.pull().payloads == [b"three"]

    def test_beyond_the_end_it_is_refused_and_nothing_changes(self, replayed: Client) -> None:
        before = replayed.info()
        for offset in (-1, 1_000_000):
            with pytest.raises(OffsetOutOfRange):
                replayed.seek(offset)
        assert replayed.info() == before

    def test_all_leases_end(self, replayed: Client) -> None:
        replayed.seek("earliest")
        replayed.pull(count=5)
        replayed.seek("earliest")
        assert replayed.info().leased == 0
        got = replayed.pull(count=5)
        assert [message.deliveries for message in got] == [1] * 5

    def test_acks_of_what_was_granted_before_change_nothing(self, replayed: Client) -> None:
        replayed.seek("earliest")
        before = replayed.pull(count=6)
        replayed.seek("earliest")
        for settle in (replayed.ack, replayed.nack, replayed.extend):
            assert settle(before) == 0
        replayed.check_unread(20)
        after = replayed.pull(count=6)
        assert after.offsets == before.offsets
        assert replayed.ack(part(after, 0, 1)) == 2
        replayed.check_unread(18)

    def test_what_was_acknowledged_out_of_order_is_unread_again(self, replayed: Client) -> None:
        replayed.seek("earliest")
        replayed.ack(part(replayed.pull(), 2, 4, 6))
        replayed.seek("earliest")
        replayed.check_unread(20)
        assert len(replayed.pull()) == 20

    def test_parked_messages_are_unread_again(self, client: Client) -> None:
        client.reader(max_deliveries=1)
        client.send(b"one")
        client.nack(client.pull())
        assert client.info().parked == 1
        client.seek("earliest")
        assert client.info().parked == 0
        assert client.pull()[0].deliveries == 1

    def test_an_ephemeral_subscription_seeks_too(self, replayed: Client) -> None:
        name = replayed.reader(b"b", None, start="new").subscriber
        replayed.seek("earliest", name)
        assert len(replayed.pull(b"b")) == 20

    def test_a_waiting_pull_gets_what_comes_of_it(self, replayed: Client) -> None:
        waiting = replayed.start_pull(wait_s=60)
        replayed.seek("earliest")
        replayed.driver.settle()
        assert waiting.done

    def test_it_needs_a_subscription(self, client: Client) -> None:
        with pytest.raises(SubscriptionNotFound):
            client.seek("new", "nobody")
        with pytest.raises(TopicNotFound):
            client.seek("new", topic="others")


class TestPeeking:
    """Looking changes nothing."""

    def test_it_shows_messages_from_an_offset_on(self, replayed: Client) -> None:
        offsets = replayed.peek("earliest").offsets
        assert len(offsets) == 20
        got = replayed.peek(offsets[5], 4)
        assert got.payloads == [b"2+", b"3", b"3+", b"4"]
        assert got.offsets == offsets[5:9]
        assert {message.deliveries for message in got} == {0}

    def test_nothing_is_granted_or_acknowledged(self, client: Client) -> None:
        client.reader()
        client.send(b"one")
        before = client.info()
        assert client.peek("earliest").payloads == [b"one"]
        assert client.info() == before
        assert client.pull()[0].deliveries == 1

    def test_from_a_place_that_is_no_longer_kept_it_shows_the_first_that_is(
        self, client: Client
    ) -> None:
        client.reader()
        first = client.send(b"one").offset
        client.ack(client.pull())
        client.send(b"two")
        assert client.peek(first).payloads == [b"two"]

    def test_the_end_and_an_empty_topic_show_nothing(self, client: Client) -> None:
        assert client.peek("earliest") == []
        end = client.send(b"one").offset + 1
        assert client.peek("new") == client.peek(end) == []
        with pytest.raises(OffsetOutOfRange):
            client.peek(end + 1)

    def test_from_a_time_on(self, replayed: Client) -> None:
        assert replayed.peek(AtTime(times(replayed)[9])).payloads == [b"9", b"9+"]

    def test_bounds_are_kept_and_one_message_always_comes(self, client: Client) -> None:
        client.send(*[b"x" * 100] * 10)
        assert 1 < len(client.peek("earliest", max_bytes=500)) < 6
        assert len(client.peek("earliest", max_bytes=1)) == 1
        with pytest.raises(InvalidArgument):
            client.peek("earliest", 0)

    def test_it_needs_a_topic(self, client: Client) -> None:
        with pytest.raises(TopicNotFound):
            client.peek("earliest", topic="others")
