"""What every engine that is durable keeps through a restart, by the numbers of the semantics.

Each test ends the engine twice: in good order, and as if it had been killed.
"""

import random

import pytest
from engine_client import Make, Messages, Restarting, part, ranges_of, session_id
from engine_drivers import Pending

from mbctl import batch as batches
from mbctl.errors import (
    InvalidArgument,
    NotSubscribed,
    OutcomeUnknown,
    ProtocolError,
    SubscriptionNotFound,
    TopicNotFound,
)
from mbctl.model import Limits


@pytest.fixture
def client(make: Make) -> Restarting:
    """One of them, with the usual limits."""
    return make()


class TestPublishing:
    """Point 1."""

    def test_a_retry_after_a_restart_is_stored_once(self, client: Restarting) -> None:
        first = client.send(b"one", b"two", sequence=1)
        client.restart()
        assert client.send(b"one", b"two", sequence=1) == first
        assert client.kept() == 2

    def test_the_window_survives_reading_deleting_and_several_restarts(
        self, client: Restarting
    ) -> None:
        client.reader()
        first = client.send(b"one", sequence=1)
        client.ack(client.pull())
        client.restart()
        assert client.send(b"one", sequence=1) == first
        client.driver.call("delete_topic", "orders")
        for _ in range(3):
            client.restart()
            assert client.send(b"one", sequence=1) == first

    def test_a_number_below_the_window_is_refused_after_a_restart(self, make: Make) -> None:
        client = make(limits=Limits(sends_in_flight=4))
        sent = [client.send(b"x") for _ in range(6)]
        client.restart()
        assert [client.send(b"x", sequence=3 + index) for index in range(4)] == sent[2:]
        with pytest.raises(OutcomeUnknown):
            client.send(b"x", sequence=2)
        assert client.kept() == 6

    def test_sessions_go_on_after_a_restart(self, client: Restarting) -> None:
        sent = [client.send(b"%d" % number) for number in range(3)]
        client.send(b"other", session=b"other")
        client.restart()
        assert client.status().publishers == 2
        later = client.send(b"3")
        assert later.offset > max(receipt.offset for receipt in sent)
        client.reader()
        assert client.pull().payloads == [b"0", b"1", b"2", b"other", b"3"]

    def test_a_refused_send_is_not_there_after_a_restart(self, client: Restarting) -> None:
        with pytest.raises(TopicNotFound):
            client.send(b"x", topic="nowhere", sequence=1)
        with pytest.raises(InvalidArgument):
            client.send(batch=b"\xc0", sequence=2)
        client.restart()
        assert client.kept() == 0
        client.send(b"x", sequence=3)
        assert client.kept() == 1


class TestVisibility:
    """Point 2."""

    def test_what_was_answered_is_read_after_a_restart_as_it_was(self, client: Restarting) -> None:
        client.reader()
        for number in range(20):
            client.send(*[b"%d-%d" % (number, index) for index in range(number + 1)])
        before = client.pull()
        client.restart()
        client.comes_back()
        after = client.pull()
        assert [message[:5] for message in after] == [message[:5] for message in before]

    def test_keys_headers_and_settings_survive(self, client: Restarting) -> None:
        client.create_topic("small", max_messages=5)
        body = batches.encode([b"one", b"two"], [b"k", None], [{"type": "new"}, None])
        client.send(batch=body, topic="small")
        created = client.driver.call("topic", "small").created
        client.restart()
        info = client.driver.call("topic", "small")
        assert (info.settings.max_messages, info.created) == (5, created)
        assert info.topic_id == client.topic_ids["small"]
        client.reader(topic="small")
        got = client.pull(topic="small")
        assert [(message.key, message.headers) for message in got] == [
            (b"k", {"type": "new"}),
            (None, None),
        ]

    def test_a_send_that_was_not_answered_is_there_once_after_its_retry(
        self, client: Restarting
    ) -> None:
        client.reader()
        client.send(b"zero")
        if client.crash:
            client.start_send(b"one", b"two", sequence=7)
            client.driver.restart(crash=True)
        else:
            client.restart()
        receipt = client.send(b"one", b"two", sequence=7)
        client.comes_back()
        got = client.pull()
        assert got.payloads == [b"zero", b"one", b"two"]
        assert got.offsets[1:] == [receipt.offset, receipt.offset + 1]


class TestSubscriptions:
    """Points 3 and 4."""

    def test_a_durable_subscription_stands_where_it_stood(self, client: Restarting) -> None:
        client.reader(ack_wait=12.5)
        client.reader(b"b", "audit")
        client.send(*[b"%d" % number for number in range(10)])
        client.ack(part(client.pull(count=6), 0, 1, 3))
        before = {
            name: client.driver.call("subscription", "orders", name)
            for name in ("billing", "audit")
        }
        client.restart()
        for name, info in before.items():
            after = client.driver.call("subscription", "orders", name)
            for field in ("durable", "cursor", "unread", "ack_wait", "created"):
                assert getattr(after, field) == getattr(info, field), field
            assert (after.leased, after.lost) == (0, 0)
        client.comes_back()
        assert not client.subscribe(ack_wait=12.5).created
        assert client.pull().payloads == [b"2", *[b"%d" % number for number in range(4, 10)]]

    def test_options_that_were_changed_survive(self, client: Restarting) -> None:
        client.reader(ack_wait=12.5)
        client.subscribe(ack_wait=0.5)
        client.restart()
        assert client.driver.call("subscription", "orders", "billing").ack_wait == 0.5

    def test_what_is_ephemeral_is_gone(self, client: Restarting) -> None:
        subscriber = client.register(b"look", None)
        client.subscribe(b"look")
        client.send(b"one")
        client.pull(b"look")
        client.restart()
        with pytest.raises(ProtocolError):
            client.pull(b"look")
        client.comes_back(b"look", None)
        with pytest.raises(NotSubscribed):
            client.pull(b"look")
        with pytest.raises(SubscriptionNotFound):
            client.driver.call("subscription", "orders", subscriber)
        assert client.kept() == 1

    def test_a_subscription_that_ended_stays_so(self, client: Restarting) -> None:
        client.reader(b"a")
        client.reader(b"b", "audit")
        client.driver.call("unsubscribe", "orders", "billing")
        client.restart()
        names = [info.subscriber for info in client.driver.call("subscriptions", None)]
        assert names == ["audit"]
        assert client.status().subscriptions == 1

    def test_one_that_comes_again_after_it_ended_begins_anew(self, client: Restarting) -> None:
        client.reader(b"a")
        client.reader(b"b", "audit")
        client.send(b"zero", b"one", b"two")
        client.ack(part(client.pull(b"a"), 0, 2))
        client.driver.call("unsubscribe", "orders", "billing")
        client.subscribe(b"a", start="earliest")
        client.restart()
        client.comes_back()
        assert client.pull().payloads == [b"zero", b"one", b"two"]


class TestAcknowledging:
    """Point 6."""

    def test_what_was_acknowledged_is_never_delivered_again(self, client: Restarting) -> None:
        client.reader()
        client.send(*[b"%d" % number for number in range(9)])
        got = client.pull()
        assert client.ack(part(got, 0, 1, 4, 7)) == 4
        client.restart()
        client.comes_back()
        again = client.pull()
        assert again.payloads == [b"2", b"3", b"5", b"6", b"8"]
        client.ack(part(again, 1, 2))
        client.restart()
        client.comes_back()
        assert client.pull().payloads == [b"2", b"6", b"8"]

    def test_what_was_not_acknowledged_is_delivered_again(self, client: Restarting) -> None:
        client.reader()
        client.send(b"one", b"two")
        before = client.pull()
        client.restart()
        client.comes_back()
        again = client.pull()
        assert again.payloads == before.payloads
        assert client.ack(again) == 2
        assert client.kept() == 0

    def test_an_ack_carried_by_a_pull_is_kept_after_a_moment(self, client: Restarting) -> None:
        client.reader()
        client.send(b"one", b"two")
        got = part(client.pull(), 0)
        client.driver.tell("ack_with_pull", b"a", "orders", got.topic_id, ranges_of(got))
        client.driver.advance(0.2)
        client.restart()
        client.comes_back()
        assert client.pull().payloads == [b"two"]

    def test_closing_keeps_an_ack_that_a_pull_has_just_carried(self, client: Restarting) -> None:
        if client.crash:
            pytest.skip("a crash within 100 ms may deliver it again")
        client.reader()
        client.send(b"one", b"two")
        got = part(client.pull(), 0)
        client.driver.tell("ack_with_pull", b"a", "orders", got.topic_id, ranges_of(got))
        client.driver.restart(crash=False)
        client.comes_back()
        assert client.pull().payloads == [b"two"]

    def test_an_ack_of_before_the_restart_still_counts(self, client: Restarting) -> None:
        client.reader()
        client.send(b"one", b"two")
        got = client.pull()
        client.restart()
        client.comes_back()
        assert client.ack(part(got, 1)) == 1
        assert client.pull().payloads == [b"one"]


class TestReclaiming:
    """Point 8."""

    def test_what_was_reclaimed_does_not_come_back(self, client: Restarting) -> None:
        client.reader()
        for number in range(10):
            client.send(b"%d" % (2 * number), b"%d" % (2 * number + 1))
        client.ack(client.pull(count=7))
        assert client.kept() == 13
        full = client.status().bytes
        client.restart()
        assert client.kept() == 13
        assert client.status().bytes == full
        subscribed = client.reader(b"b", "audit", start="earliest")
        assert client.pull(b"b").payloads == [b"%d" % number for number in range(7, 20)]
        assert subscribed.offset == client.driver.call("topic", "orders").first_offset

    def test_offsets_go_on_rising_when_everything_was_reclaimed(self, client: Restarting) -> None:
        client.reader()
        last = client.send(b"one", b"two")
        client.ack(client.pull())
        for number in range(3):
            client.restart()
            assert client.kept() == 0
            assert client.status().bytes == 0
            receipt = client.send(b"%d" % number)
            assert receipt.offset >= last.offset + last.count
            last = receipt
            client.comes_back()
            got = client.pull()
            assert got.payloads == [b"%d" % number]
            client.ack(got)

    def test_reclaiming_goes_on_after_a_restart(self, client: Restarting) -> None:
        client.reader(b"a")
        client.reader(b"b", "audit")
        client.send(b"one", b"two")
        client.ack(client.pull(b"a"), b"a")
        client.restart()
        assert client.kept() == 2
        holds = client.driver.call("why", "orders").holds
        assert [(hold.subscriber, hold.messages) for hold in holds] == [("audit", 2)]
        client.comes_back(b"b", "audit")
        client.ack(part(client.pull(b"b"), 0), b"b")
        assert client.kept() == 1
        client.driver.call("unsubscribe", "orders", "audit")
        assert client.kept() == 0

    def test_nothing_is_reclaimed_without_a_subscription(self, client: Restarting) -> None:
        client.send(b"one")
        client.restart()
        assert client.kept() == 1
        assert client.reader().skipped == 0
        assert client.pull().payloads == [b"one"]


class TestTopics:
    """Point 10."""

    def test_a_deleted_topic_stays_deleted(self, client: Restarting) -> None:
        client.create_topic("others")
        client.send(b"x", topic="others")
        client.driver.call("delete_topic", "others")
        client.restart()
        assert [topic.topic for topic in client.driver.call("topics")] == ["orders"]
        assert client.status().bytes == 0

    def test_a_new_topic_of_the_same_name_has_a_new_id(self, client: Restarting) -> None:
        client.reader()
        client.send(b"old")
        old = client.pull()
        client.driver.call("delete_topic", "orders")
        seen = {old.topic_id}
        for _ in range(3):
            client.restart()
            client.create_topic("orders")
            assert client.topic_ids["orders"] not in seen
            seen.add(client.topic_ids["orders"])
            client.reader()
            client.send(b"new")
            with pytest.raises(TopicNotFound):
                client.ack(old)
            assert client.pull().payloads == [b"new"]
            client.driver.call("delete_topic", "orders")


class TestTime:
    """Point 13."""

    def test_timestamps_never_decrease_through_a_restart(self, client: Restarting) -> None:
        client.reader()
        stamps = []
        for number in range(4):
            client.send(b"x")
            got = client.pull()
            stamps.append(got[0].timestamp)
            if number % 2:
                client.ack(got)
            else:
                client.nack(got)
            client.restart()
            client.comes_back()
        assert stamps == sorted(stamps)


class Ledger:
    """What was answered, and what a reader saw, of one topic through any number of restarts."""

    def __init__(self, client: Restarting, seed: int) -> None:
        self.client = client
        self.random = random.Random(seed)
        self.seen: dict[int, bytes] = {}
        self.acked: set[int] = set()
        self.unanswered: dict[int, Pending] = {}
        self.payloads: dict[int, list[bytes]] = {}
        self.offsets: dict[int, int] = {}
        self.restarts = 0
        client.driver.call("register_publisher", session_id(b"session"))
        client.reader()

    def send(self) -> None:
        number = len(self.payloads) + 1
        self.payloads[number] = [b"%d-%d" % (number, i) for i in range(self.random.randint(1, 4))]
        self.begin(number)

    def begin(self, number: int) -> None:
        pending = self.client.start_send(*self.payloads[number], sequence=number)
        self.unanswered[number] = pending

    def note_answers(self) -> None:
        for number, pending in list(self.unanswered.items()):
            if pending.done:
                del self.unanswered[number]
                assert number not in self.offsets
                self.offsets[number] = pending.result().offset

    def pull(self) -> None:
        got = self.client.pull(count=self.random.randint(1, 6))
        assert not self.acked & set(got.offsets)
        for message in got:
            # An offset that was seen once never has another content.
            assert self.seen.setdefault(message.offset, message.payload) == message.payload
        chosen = Messages.__new__(Messages)
        list.__init__(chosen, [message for message in got if self.random.random() < 0.7])
        chosen.topic_id = got.topic_id
        if chosen:
            self.client.ack(chosen)
            self.acked.update(chosen.offsets)

    def restart(self) -> None:
        if not self.client.crash:
            self.client.driver.settle()
            self.note_answers()
        self.client.driver.restart(crash=self.client.crash)
        self.note_answers()
        self.restarts += 1
        again, self.unanswered = sorted(self.unanswered), {}
        for number in again:
            self.begin(number)
        self.client.comes_back()

    def end(self) -> None:
        """Read all that is left: everything sent is there, once, in order."""
        self.client.driver.settle()
        self.note_answers()
        assert not self.unanswered
        self.client.register()
        while got := self.client.pull():
            assert not self.acked & set(got.offsets)
            self.seen.update(zip(got.offsets, got.payloads, strict=True))
            self.client.ack(got)
        assert self.client.kept() == 0
        assert list(self.offsets.values()) != []
        expected = {
            offset + index: payload
            for number, offset in self.offsets.items()
            for index, payload in enumerate(self.payloads[number])
        }
        assert self.seen == expected
        in_order = [self.offsets[number] for number in sorted(self.offsets)]
        assert in_order == sorted(in_order)


@pytest.mark.parametrize("seed", range(6))
def test_a_ledger_of_a_random_history_balances(client: Restarting, seed: int) -> None:
    ledger = Ledger(client, seed)
    for _ in range(120):
        ledger.random.choices(
            [ledger.send, ledger.pull, client.driver.settle, ledger.restart], [6, 4, 3, 1]
        )[0]()
        ledger.note_answers()
    ledger.end()
    assert ledger.restarts > 2
