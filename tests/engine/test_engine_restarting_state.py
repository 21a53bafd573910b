"""What survives a restart of redelivery, retention and seeking: points 7, 8, 9 and 11."""

import pytest
from engine_client import Make, Restarting, part

from mbctl.errors import InvalidArgument


@pytest.fixture
def client(make: Make) -> Restarting:
    """A client of an engine that is durable, with one topic, ``orders``."""
    return make()


class TestRedelivery:
    """Point 7."""

    def test_options_survive(self, client: Restarting) -> None:
        client.create_topic("dead")
        client.reader(max_deliveries=4, dead_letter="dead")
        client.restart()
        info = client.info()
        assert (info.max_deliveries, info.dead_letter) == (4, "dead")
        client.comes_back()
        client.subscribe()
        info = client.info()
        assert (info.max_deliveries, info.dead_letter) == (None, None)

    def test_counts_of_second_and_later_deliveries_survive(self, client: Restarting) -> None:
        client.reader()
        client.send(b"one", b"two", b"three")
        client.nack(client.pull())
        client.nack(client.pull(count=2))
        client.nack(client.pull(count=1))
        client.restart()
        client.comes_back()
        # The first delivery of the third is the one that a restart forgets.
        assert [message.deliveries for message in client.pull()] == [4, 3, 1]

    def test_a_message_that_kills_its_readers_dies_through_restarts(
        self, client: Restarting
    ) -> None:
        client.create_topic("dead")
        client.reader(max_deliveries=5, dead_letter="dead")
        client.send(b"poison")
        deliveries = 0
        for _ in range(4):
            for _ in range(2):
                deliveries += len(client.pull())
                client.driver.tell("close_member", b"a")
                client.register()
            # A count is stored with the next group, at the latest after 100 ms.
            client.driver.advance(0.2)
            client.restart()
            client.comes_back()
        assert client.peek("earliest", topic="dead").payloads == [b"poison"]
        assert deliveries == 5
        assert client.info().unread == 0

    def test_a_dead_letter_is_there_once(self, client: Restarting) -> None:
        client.create_topic("dead")
        client.reader(max_deliveries=1, dead_letter="dead")
        client.send(b"poison", b"venom")
        client.nack(client.pull())
        client.driver.advance(0.2)
        before = client.peek("earliest", topic="dead")
        for _ in range(2):
            client.restart()
            after = client.peek("earliest", topic="dead")
            assert [message[:4] for message in after] == [message[:4] for message in before]
            assert client.info().unread == 0
            assert client.kept() == 0

    def test_what_is_parked_stays_so_and_what_was_released_does_not(
        self, client: Restarting
    ) -> None:
        client.reader(max_deliveries=1)
        first = client.send(b"0", b"1", b"2", b"3").offset
        client.nack(client.pull())
        client.release_parked([(first, first + 1)])
        client.drop_parked([(first + 2, first + 3)])
        client.restart()
        client.comes_back()
        info = client.info()
        assert info.parked_ranges == [(first + 1, first + 2), (first + 3, first + 4)]
        got = client.pull()
        assert (got.payloads, got[0].deliveries) == ([b"0"], 1)
        client.restart()
        assert client.info().parked == 2
        assert client.release_parked() == 2

    def test_many_restarts_change_nothing(self, client: Restarting) -> None:
        client.reader(max_deliveries=9)
        client.send(*[b"%d" % number for number in range(20)])
        client.nack(client.pull())
        for _ in range(3):
            client.nack(client.pull())
        client.restart()
        before = client.info()
        client.restart()
        assert client.info() == before


class TestRetention:
    """Points 8 and 9."""

    def test_settings_and_what_is_retained_survive(self, client: Restarting) -> None:
        client.create_topic("kept", retain_age=60.0)
        client.reader(topic="kept")
        client.send(b"one", topic="kept")
        client.ack(client.pull(topic="kept"), topic="kept")
        client.restart()
        assert client.peek("earliest", topic="kept").payloads == [b"one"]
        client.driver.advance(70)
        assert client.peek("earliest", topic="kept") == []

    def test_messages_expire_after_a_restart(self, client: Restarting) -> None:
        client.create_topic("news", max_age=60.0)
        client.reader(topic="news")
        client.send(b"one", topic="news")
        client.driver.advance(30)
        client.restart()
        assert client.kept("news") == 1
        client.driver.advance(40)
        assert client.kept("news") == 0
        assert client.info(topic="news").expired == 1

    def test_what_was_dropped_stays_so_and_stays_counted(self, client: Restarting) -> None:
        client.create_topic("ring", when_full="drop_oldest", max_messages=3)
        client.reader(topic="ring")
        client.reader(b"b", "slow", "ring", start="earliest")
        for number in range(3):
            client.send(b"%d" % number, topic="ring")
        client.ack(part(client.pull(topic="ring"), 1), topic="ring")
        for number in range(3, 6):
            client.send(b"%d" % number, topic="ring")
        for _ in range(2):
            client.restart()
            assert client.info(topic="ring").dropped == 2
            assert client.info("slow", "ring").dropped == 3
            assert client.kept("ring") == 3
        client.comes_back()
        assert client.pull(topic="ring").payloads == [b"3", b"4", b"5"]

    def test_a_burst_that_drops_itself_survives(self, client: Restarting) -> None:
        client.create_topic("ring", when_full="drop_oldest", max_messages=3)
        client.reader(topic="ring")
        sends = [client.start_send(b"%d" % number, topic="ring") for number in range(20)]
        client.driver.settle()
        last = sends[-1].result().offset
        client.restart()
        client.comes_back()
        assert client.pull(topic="ring").offsets[-1] == last
        assert client.info(topic="ring").dropped == 17
        assert client.send(b"x", topic="ring").offset > last

    def test_what_was_purged_does_not_come_back(self, client: Restarting) -> None:
        client.reader()
        client.reader(b"b", "audit")
        last = client.send(b"one", b"two")
        client.ack(part(client.pull(), 1))
        client.purge()
        client.restart()
        assert client.kept() == 0
        for name in ("billing", "audit"):
            info = client.info(name)
            assert (info.unread, info.dropped, info.expired) == (0, 0, 0)
        assert client.driver.engine.clamped == []
        assert client.send(b"three").offset > last.offset + 1


class TestSeeking:
    """Point 11."""

    def test_a_subscription_stays_where_it_was_moved(self, client: Restarting) -> None:
        client.create_topic("kept", retain_age=1e6)
        client.reader(topic="kept")
        for number in range(6):
            client.send(b"%d" % number, topic="kept")
        client.ack(client.pull(topic="kept"), topic="kept")
        offset = client.peek("earliest", topic="kept").offsets[2]
        client.seek(offset, topic="kept")
        client.restart()
        client.comes_back()
        got = client.pull(topic="kept")
        assert got.payloads == [b"2", b"3", b"4", b"5"]
        client.ack(part(got, 0, 2), topic="kept")
        client.seek("new", topic="kept")
        client.restart()
        assert client.info(topic="kept").unread == 0

    def test_an_ack_just_before_a_seek_is_not_stored_after_it(self, client: Restarting) -> None:
        client.create_topic("kept", retain_age=1e6)
        client.reader(topic="kept")
        client.send(b"one", b"two", topic="kept")
        got = client.pull(topic="kept")
        start = client.driver.start
        ranges = [(got.offsets[0], got.offsets[-1] + 1)]
        start("ack", b"a", "kept", got.topic_id, ranges)
        start("seek", "kept", "billing", "earliest")
        client.driver.settle()
        client.restart()
        client.comes_back()
        assert client.pull(topic="kept").payloads == [b"one", b"two"]

    def test_start_of_before_a_restart_is_refused_as_ever(self, client: Restarting) -> None:
        client.restart()
        with pytest.raises(InvalidArgument):
            client.create_topic("bad", max_age=-1.0)
