"""What every engine keeps and gives up: what was read (point 8), and the bounds (point 9)."""

import pytest
from engine_client import Client, Messages

from mbctl.errors import InvalidArgument, TopicFull, TopicNotFound
from mbctl.model import KIB


def payloads_kept(client: Client, topic: str = "orders") -> list[bytes]:
    """What the topic shows to who looks."""
    return client.peek("earliest", topic=topic).payloads


def read_all(client: Client, member: bytes = b"a") -> None:
    """Pull and acknowledge what there is."""
    while pull := client.pull(member):
        client.ack(pull, member)


class TestRetaining:
    """Point 8: ``retain_age`` and ``retain_bytes`` keep what was read, for replay."""

    def test_what_was_read_is_kept_until_it_is_too_old(self, client: Client) -> None:
        client.create_topic("kept", retain_age=60.0)
        client.reader(topic="kept")
        client.send(b"one", topic="kept")
        client.ack(client.pull(topic="kept"), topic="kept")
        client.driver.advance(50)
        assert payloads_kept(client, "kept") == [b"one"]
        client.driver.advance(15)
        assert payloads_kept(client, "kept") == []
        assert client.info(topic="kept").expired == 0

    def test_what_was_read_goes_at_its_age_though_unread_may_be_older(self, client: Client) -> None:
        client.create_topic("kept", retain_age=5.0, max_age=1000.0)
        client.reader(topic="kept")
        for _ in range(2):
            client.send(b"one", topic="kept")
            client.driver.advance(20)
            assert payloads_kept(client, "kept") == [b"one"]
            client.ack(client.pull(topic="kept"), topic="kept")
            client.driver.advance(2)
            assert payloads_kept(client, "kept") == []
        assert client.info(topic="kept").expired == 0

    def test_unread_messages_are_kept_whatever_their_age(self, client: Client) -> None:
        client.create_topic("kept", retain_age=1.0)
        client.reader(topic="kept")
        client.send(b"one", topic="kept")
        client.driver.advance(1000)
        assert client.pull(topic="kept").payloads == [b"one"]

    def test_the_newest_bytes_of_what_was_read_are_kept(self, client: Client) -> None:
        client.create_topic("kept", retain_bytes=3 * KIB)
        client.reader(topic="kept")
        for number in range(10):
            client.send(b"%d" % number * 1000, topic="kept")
            client.ack(client.pull(topic="kept"), topic="kept")
        assert payloads_kept(client, "kept") == [b"%d" % number * 1000 for number in (7, 8, 9)]

    def test_what_is_retained_can_be_read_again(self, client: Client) -> None:
        client.create_topic("kept", retain_age=1000.0)
        client.reader(topic="kept")
        client.send(b"one", b"two", topic="kept")
        client.ack(client.pull(topic="kept"), topic="kept")
        client.seek("earliest", topic="kept")
        assert client.pull(topic="kept").payloads == [b"one", b"two"]
        assert client.reader(b"b", "late", "kept", start="earliest").skipped == 0
        assert client.pull(b"b", topic="kept").payloads == [b"one", b"two"]

    def test_what_is_only_retained_is_given_up_before_a_send_is_refused(
        self, client: Client
    ) -> None:
        client.create_topic("kept", retain_age=1000.0, max_messages=3)
        client.reader(topic="kept")
        for number in range(3):
            client.send(b"%d" % number, topic="kept")
        pull = client.pull(count=2, topic="kept")
        client.ack(pull, topic="kept")
        assert client.kept("kept") == 3
        client.send(b"3", topic="kept")
        client.send(b"4", topic="kept")
        assert payloads_kept(client, "kept") == [b"2", b"3", b"4"]
        with pytest.raises(TopicFull):
            client.send(b"5", topic="kept")

    def test_without_a_subscription_nothing_is_given_up(self, client: Client) -> None:
        client.create_topic("kept", retain_age=1.0, retain_bytes=1)
        client.send(b"one", topic="kept")
        client.driver.advance(1000)
        assert payloads_kept(client, "kept") == [b"one"]

    def test_what_is_retained_is_given_up_when_the_broker_is_full(self, new_client) -> None:
        client = new_client(max_bytes=64 * KIB)
        client.create_topic("orders", retain_age=1e6)
        client.reader()
        refused = most = 0
        for number in range(200):
            try:
                client.send(b"%d" % number * 500)
            except Exception:
                refused += 1
                client.driver.advance(0.2)
            read_all(client)
            most = max(most, client.kept())
        # Now and then a send comes before the space of what was given up is free again.
        assert refused < 40
        assert most > 20


class TestDropping:
    """Point 9: ``drop_oldest`` gives up whole old batches, and counts them."""

    @pytest.mark.parametrize("bound", [{"max_messages": 4}, {"max_bytes": 4 * KIB}])
    def test_the_oldest_batches_make_room(self, client: Client, bound: dict[str, int]) -> None:
        client.create_topic("ring", when_full="drop_oldest", **bound)
        for number in range(5):
            client.send(b"%d" % number * 500, b"%d" % number * 500, topic="ring")
        kept = payloads_kept(client, "ring")
        if "max_messages" in bound:
            assert kept == [b"3" * 500] * 2 + [b"4" * 500] * 2
        else:
            assert kept == [b"%d" % number * 500 for number in (1, 1, 2, 2, 3, 3, 4, 4)]

    def test_each_subscription_counts_what_it_had_not_acknowledged(self, client: Client) -> None:
        client.create_topic("ring", when_full="drop_oldest", max_messages=3)
        client.reader(topic="ring")
        client.reader(b"b", "slow", "ring", start="earliest")
        for number in range(3):
            client.send(b"%d" % number, topic="ring")
        client.ack(client.pull(count=2, topic="ring"), topic="ring")
        for number in range(3, 6):
            client.send(b"%d" % number, topic="ring")
        assert client.info(topic="ring").dropped == 1
        assert client.info("slow", "ring").dropped == 3
        assert client.pull(topic="ring").payloads == [b"3", b"4", b"5"]
        assert client.pull(b"b", topic="ring").payloads == [b"3", b"4", b"5"]

    def test_leases_of_what_is_dropped_end(self, client: Client) -> None:
        client.create_topic("ring", when_full="drop_oldest", max_messages=2)
        client.reader(topic="ring")
        client.send(b"0", topic="ring")
        client.send(b"1", topic="ring")
        pull = client.pull(topic="ring")
        client.send(b"2", topic="ring")
        client.send(b"3", topic="ring")
        assert client.ack(pull, topic="ring") == 0
        assert client.pull(topic="ring").payloads == [b"2", b"3"]

    def test_a_batch_that_can_never_fit_is_refused_and_drops_nothing(self, client: Client) -> None:
        client.create_topic("ring", when_full="drop_oldest", max_messages=2)
        client.send(b"0", topic="ring")
        with pytest.raises(TopicFull):
            client.send(b"1", b"2", b"3", topic="ring")
        assert payloads_kept(client, "ring") == [b"0"]

    def test_a_burst_beyond_the_bound_keeps_its_end(self, client: Client) -> None:
        client.create_topic("ring", when_full="drop_oldest", max_messages=3)
        client.reader(topic="ring")
        sends = [client.start_send(b"%d" % number, topic="ring") for number in range(20)]
        client.driver.settle()
        assert [send.result().count for send in sends] == [1] * 20
        assert client.pull(topic="ring").payloads == [b"17", b"18", b"19"]
        assert client.info(topic="ring").dropped == 17

    def test_dropping_needs_a_bound(self, client: Client) -> None:
        with pytest.raises(InvalidArgument):
            client.create_topic("ring", when_full="drop_oldest")


class TestExpiring:
    """Point 9: ``max_age`` drops old messages, read or not, and counts them."""

    def test_old_messages_expire_read_or_not(self, client: Client) -> None:
        client.create_topic("news", max_age=60.0)
        client.reader(topic="news")
        client.send(b"old", topic="news")
        client.driver.advance(40)
        client.send(b"new", topic="news")
        client.driver.advance(25)
        assert payloads_kept(client, "news") == [b"new"]
        assert client.info(topic="news").expired == 1
        assert client.pull(topic="news").payloads == [b"new"]
        client.driver.advance(60)
        assert payloads_kept(client, "news") == []
        assert client.info(topic="news").expired == 2

    def test_they_expire_without_a_subscription_too(self, client: Client) -> None:
        client.create_topic("news", max_age=5.0)
        client.send(b"old", topic="news")
        client.driver.advance(10)
        assert client.kept("news") == 0

    def test_what_was_acknowledged_does_not_count_as_expired(self, client: Client) -> None:
        client.create_topic("news", max_age=60.0, retain_age=1000.0)
        client.reader(topic="news")
        client.send(b"one", b"two", b"three", topic="news")
        pull = client.pull(topic="news")
        client.ack([(pull.offsets[1], pull.offsets[1] + 1)], topic="news")
        client.driver.advance(100)
        assert client.kept("news") == 0
        assert client.info(topic="news").expired == 2

    @pytest.mark.parametrize(
        "settings",
        [{"max_age": 0.0}, {"max_age": -1.0}, {"retain_bytes": 0}, {"retain_age": float("nan")}],
    )
    def test_a_bound_that_makes_no_sense_is_refused(
        self, client: Client, settings: dict[str, float]
    ) -> None:
        with pytest.raises(InvalidArgument):
            client.create_topic("news", **settings)


class TestPurging:
    """Point 10: purging answers at once, and takes all messages, read or not."""

    def test_all_messages_are_given_up(self, client: Client) -> None:
        client.reader()
        first = client.send(b"one", b"two")
        client.send(b"three")
        pull = client.pull(count=1)
        assert client.purge() == 3
        assert client.kept() == 0
        assert client.purge() == 0
        assert client.ack(pull) == 0
        info = client.info()
        assert (info.unread, info.leased, info.dropped, info.expired) == (0, 0, 0, 0)
        assert client.send(b"four").offset > first.offset
        assert client.pull().payloads == [b"four"]

    def test_a_waiting_pull_goes_on_waiting(self, client: Client) -> None:
        client.reader()
        waiting = client.start_pull(wait_s=60)
        client.purge()
        assert not waiting.done
        client.send(b"one")
        assert Messages(waiting.result()).payloads == [b"one"]

    def test_it_needs_a_topic(self, client: Client) -> None:
        with pytest.raises(TopicNotFound):
            client.purge("others")
