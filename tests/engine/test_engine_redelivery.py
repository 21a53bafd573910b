"""What every engine does with messages that are delivered again and again: point 7."""

import pytest
from engine_client import Client, Message, Messages, needs, part

from mbctl import batch as batches
from mbctl.errors import InvalidArgument, NotSubscribed, SubscriptionNotFound, TopicNotFound
from mbctl.model import Limits


def fail(client: Client, times: int = 1) -> list[Messages]:
    """Pull and give back so many times; what came."""
    pulls = []
    for _ in range(times):
        pulls.append(client.pull())
        client.nack(pulls[-1])
    return pulls


def dead_letters(client: Client, topic: str = "dead") -> list[Message]:
    """What the dead-letter topic has."""
    client.driver.advance(0.2)
    return client.peek("earliest", topic=topic)


@pytest.fixture
def dying(client: Client) -> Client:
    """One whose subscription lets messages die at the third delivery."""
    client.create_topic("dead")
    client.reader(max_deliveries=3, dead_letter="dead")
    return client


class TestSuspects:
    """With a maximum, what was delivered before is granted alone."""

    def test_what_was_delivered_before_is_granted_alone(self, client: Client) -> None:
        client.reader(max_deliveries=5)
        client.send(b"one", b"two", b"three")
        client.nack(client.pull())
        client.send(b"four")
        got = [client.pull() for _ in range(4)]
        assert [pull.payloads for pull in got] == [[b"one"], [b"two"], [b"three"], [b"four"]]
        assert [pull[0].deliveries for pull in got] == [2, 2, 2, 1]

    def test_a_poison_message_does_not_count_against_its_neighbours(self, dying: Client) -> None:
        dying.send(b"good", b"poison", b"fine")
        dying.nack(dying.pull())
        for _ in range(6):
            pull = dying.pull()
            if pull.payloads == [b"poison"]:
                dying.nack(pull)
            elif pull:
                dying.ack(pull)
        assert [message.payload for message in dead_letters(dying)] == [b"poison"]
        dying.check_unread(0)

    def test_without_a_maximum_what_was_delivered_before_comes_together(
        self, client: Client
    ) -> None:
        client.reader()
        client.send(b"one", b"two")
        assert [pull.payloads for pull in fail(client, 20)] == [[b"one", b"two"]] * 20
        assert client.info().parked == 0


class TestDeadLetters:
    """At the maximum a message moves to the dead-letter topic, and says where it comes from."""

    def test_a_message_moves_at_the_maximum_and_not_before(self, dying: Client) -> None:
        dying.send(b"poison")
        assert [pull[0].deliveries for pull in fail(dying, 2)] == [1, 2]
        assert dead_letters(dying) == []
        assert [pull[0].deliveries for pull in fail(dying, 1)] == [3]
        assert [message.payload for message in dead_letters(dying)] == [b"poison"]
        assert dying.pull() == []
        info = dying.info()
        assert (info.unread, info.parked, info.redeliver) == (0, 0, 0)
        assert dying.kept() == 0

    def test_headers_tell_where_it_comes_from(self, dying: Client) -> None:
        dying.send(b"ok")
        dying.ack(dying.pull())
        sent = dying.send(
            batch=batches.encode([b"x", b"poison"], [None, b"key"], [None, {"mine": "1"}])
        )
        dying.ack(part(dying.pull(), 0))
        dying.driver.advance(31)
        fail(dying, 2)
        (letter,) = dead_letters(dying)
        assert (letter.payload, letter.key) == (b"poison", b"key")
        assert letter.headers == {
            "mine": "1",
            "mbctl-topic": "orders",
            "mbctl-offset": str(sent.offset + 1),
            "mbctl-subscriber": "billing",
            "mbctl-deliveries": "3",
        }

    @pytest.mark.parametrize("how", ["nack", "deadline", "gone", "delayed"])
    def test_every_way_of_giving_back_ends_in_the_dead_letters(
        self, dying: Client, how: str
    ) -> None:
        dying.send(b"poison", b"venom")
        for _ in range(6):
            pull = dying.pull()
            if how == "nack":
                dying.nack(pull)
            elif how == "delayed":
                dying.nack(pull, delay_s=5)
            elif how == "gone":
                dying.driver.tell("close_member", b"a")
                dying.register()
            dying.driver.advance(31)
        assert {message.payload for message in dead_letters(dying)} == {b"poison", b"venom"}
        dying.check_unread(0)

    def test_what_is_given_back_uncounted_never_dies(self, dying: Client) -> None:
        dying.send(b"one")
        for _ in range(10):
            dying.nack(dying.pull(), counted=False)
        assert dying.pull().payloads == [b"one"]
        assert dead_letters(dying) == []

    def test_many_messages_die_together_and_keep_their_order(self, client: Client) -> None:
        client.create_topic("dead")
        client.reader(max_deliveries=1, dead_letter="dead")
        payloads = [b"%d" % number for number in range(500)]
        for at in range(0, 500, 5):
            client.send(*payloads[at : at + 5])
        client.nack(client.pull())
        assert [message.payload for message in dead_letters(client)] == payloads
        assert client.kept() == 0

    def test_a_late_ack_saves_a_message_that_has_not_been_moved(self, dying: Client) -> None:
        dying.send(b"slow")
        fail(dying, 2)
        pull = dying.pull()
        assert dying.ack(pull) == 1
        dying.driver.advance(100)
        assert dead_letters(dying) == []

    def test_dead_letters_wake_who_waits_for_them(self, dying: Client) -> None:
        dying.reader(b"b", "undertaker", "dead")
        waiting = dying.start_pull(b"b", topic="dead", wait_s=60)
        dying.send(b"poison")
        fail(dying, 3)
        dying.driver.advance(0.2)
        assert Messages(waiting.result()).payloads == [b"poison"]

    def test_other_subscriptions_still_get_the_message(self, dying: Client) -> None:
        dying.reader(b"b", "audit")
        dying.send(b"poison")
        fail(dying, 3)
        assert len(dead_letters(dying)) == 1
        assert dying.pull(b"b").payloads == [b"poison"]

    def test_an_ephemeral_subscription_has_dead_letters_too(self, client: Client) -> None:
        client.create_topic("dead")
        client.reader(name=None, max_deliveries=1, dead_letter="dead")
        client.send(b"poison")
        fail(client)
        assert [message.payload for message in dead_letters(client)] == [b"poison"]
        assert client.pull() == []

    def test_the_dead_letter_topic_must_exist_and_be_another(self, client: Client) -> None:
        client.register()
        with pytest.raises(TopicNotFound):
            client.subscribe(max_deliveries=3, dead_letter="dead")
        with pytest.raises(InvalidArgument):
            client.subscribe(max_deliveries=3, dead_letter="orders")
        client.create_topic("dead")
        with pytest.raises(InvalidArgument):
            client.subscribe(dead_letter="dead")
        for most in (0, -1):
            with pytest.raises(InvalidArgument):
                client.subscribe(max_deliveries=most, dead_letter="dead")
        with pytest.raises(NotSubscribed):
            client.pull()


class TestParking:
    """What cannot be moved is parked: not delivered, shown, released or dropped by hand."""

    @pytest.fixture
    def parked(self, client: Client) -> Client:
        """One whose first of two messages is parked."""
        client.reader(max_deliveries=2)
        client.send(b"poison", b"good")
        fail(client, 2)
        client.ack(client.pull())
        return client

    def test_without_a_dead_letter_topic_it_is_parked(self, parked: Client) -> None:
        info = parked.info()
        parked.check_unread(1)
        assert (info.parked, info.leased, info.redeliver) == (1, 0, 0)
        assert info.parked_ranges == [(info.cursor, info.cursor + 1)]
        assert parked.pull() == []

    def test_what_is_parked_is_kept_and_counted_as_the_reason(self, parked: Client) -> None:
        (hold,) = parked.driver.call("why", "orders").holds
        assert hold.subscriber == "billing"
        assert (hold.messages or hold.batches) >= 1
        assert parked.kept() >= 1

    def test_new_messages_go_past_it(self, parked: Client) -> None:
        parked.send(b"new")
        pull = parked.pull()
        assert pull.payloads == [b"new"]
        assert parked.ack(pull) == 1
        assert parked.info().parked == 1

    def test_released_it_is_delivered_as_new(self, parked: Client) -> None:
        assert parked.release_parked() == 1
        assert parked.release_parked() == 0
        pull = parked.pull()
        assert (pull.payloads, pull[0].deliveries) == ([b"poison"], 1)
        parked.ack(pull)
        parked.check_unread(0)

    def test_releasing_wakes_a_waiting_pull(self, parked: Client) -> None:
        waiting = parked.start_pull(wait_s=60)
        parked.release_parked()
        parked.driver.settle()
        assert Messages(waiting.result()).payloads == [b"poison"]

    def test_dropped_it_is_acknowledged(self, parked: Client) -> None:
        assert parked.drop_parked() == 1
        assert parked.drop_parked() == 0
        parked.check_unread(0)
        assert parked.kept() == 0

    def test_ranges_choose_what_is_released_and_dropped(self, client: Client) -> None:
        client.reader(max_deliveries=1)
        first = client.send(*[b"%d" % number for number in range(6)]).offset
        client.nack(client.pull())
        assert client.info().parked == 6
        assert client.drop_parked([(first, first + 2)]) == 2
        assert client.release_parked([(first + 3, first + 4), (first + 5, first + 6)]) == 2
        assert client.pull().payloads == [b"3", b"5"]
        assert client.info().parked == 2
        assert client.drop_parked([(first, first + 6)]) == 2

    def test_a_late_ack_takes_it_from_the_parked(self, client: Client) -> None:
        needs(client, "late_acks")
        client.reader(max_deliveries=1)
        client.send(b"slow")
        pull = client.pull()
        client.driver.advance(31)
        assert client.info().parked == 1
        assert client.ack(pull) == 1
        info = client.info()
        client.check_unread(0)
        assert info.parked == 0

    @pytest.mark.parametrize("fault", ["deleted", "full", "headers"])
    def test_what_cannot_be_moved_is_parked(self, client: Client, fault: str) -> None:
        client.create_topic("dead", **({"max_bytes": 1300} if fault == "full" else {}))
        client.reader(max_deliveries=1, dead_letter="dead")
        headers = {str(number): "x" for number in range(Limits().headers)}
        batch = batches.encode([b"poison" * 50], None, [headers if fault == "headers" else None])
        if fault == "deleted":
            client.driver.call("delete_topic", "dead")
        elif fault == "full":
            client.send(b"x" * 1000, topic="dead")
        client.send(batch=batch)
        client.nack(client.pull())
        client.driver.advance(0.2)
        assert client.info().parked == 1
        if fault == "full":
            assert client.kept("dead") == 1

    def test_it_needs_a_subscription(self, client: Client) -> None:
        for verb in (client.release_parked, client.drop_parked):
            with pytest.raises(SubscriptionNotFound):
                verb()
            with pytest.raises(TopicNotFound):
                verb(topic="others")
