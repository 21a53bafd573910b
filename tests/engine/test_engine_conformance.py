"""What every engine does: each class proves one numbered point of the semantics.

Redelivery up to a maximum (7), what is retained and dropped (8 and 9) and moving a
subscription (11) have modules of their own.

    1 publishing      5 granting         9 limits
    2 durability      6 acknowledging   10 creating and deleting
    3 subscribing     7 redelivery      12 bounds on state
    4 durable and     8 reclaiming      13 time
      ephemeral

The tests use offsets only as they were given, so that an engine whose offsets have gaps
passes too; what is promised only for dense offsets asks for that capability.
"""

from itertools import chain

import pytest
from engine_client import Client, Messages, needs, part, ranges_of

from mbctl import batch as batches
from mbctl.errors import (
    BatchTooLarge,
    DiskFull,
    InvalidArgument,
    InvalidName,
    LimitExceeded,
    MessageTooLarge,
    NotSubscribed,
    OffsetOutOfRange,
    OutcomeUnknown,
    ProtocolError,
    SubscriptionNotFound,
    TopicExists,
    TopicFull,
    TopicNotFound,
)
from mbctl.model import KIB, MIB, Limits


def send_when_there_is_room(client: Client, *payloads: bytes, **what: str) -> None:
    """Send as soon as space that was given back can be used again: at once, or within 5 s."""
    for _ in range(50):
        try:
            client.send(*payloads, **what)
            return
        except DiskFull:
            client.driver.advance(0.1)
    pytest.fail("space that was given back is not used again")


class TestPublishing:
    """Point 1."""

    def test_a_receipt_tells_where_the_batch_is(self, client: Client) -> None:
        first = client.send(b"one")
        second = client.send(b"two", b"three", b"four")
        assert (first.topic, first.count) == ("orders", 1)
        assert second.count == 3
        assert second.offset > first.offset
        client.reader()
        got = client.pull()
        assert got.payloads == [b"one", b"two", b"three", b"four"]
        assert got.offsets[0] == first.offset
        assert got.offsets[1:] == [second.offset + index for index in range(3)]

    def test_dense_offsets_begin_at_0_and_have_no_gaps(self, client: Client) -> None:
        needs(client, "dense_offsets")
        assert [client.send(*[b"x"] * count).offset for count in (1, 3, 2)] == [0, 1, 4]

    def test_a_retry_is_stored_once_and_gets_the_same_receipt(self, client: Client) -> None:
        client.reader()
        first = client.send(b"one", sequence=1)
        assert client.send(b"one", sequence=1, age_ms=200) == first
        assert client.pull().payloads == [b"one"]

    def test_retries_while_the_first_attempt_is_under_way_are_stored_once(
        self, client: Client
    ) -> None:
        client.reader()
        attempts = [client.start_send(b"one", sequence=1) for _ in range(3)]
        client.driver.settle()
        assert len({attempt.result().offset for attempt in attempts}) == 1
        assert client.pull().payloads == [b"one"]

    def test_a_retry_finds_its_answer_after_reading_and_deleting(self, client: Client) -> None:
        client.reader()
        first = client.send(b"one", sequence=1)
        client.ack(client.pull())
        assert client.send(b"one", sequence=1) == first
        client.driver.call("delete_topic", "orders")
        assert client.send(b"one", sequence=1) == first

    def test_a_retry_of_a_refused_send_is_refused_the_same(self, client: Client) -> None:
        with pytest.raises(TopicNotFound):
            client.send(b"one", topic="others", sequence=1)
        client.create_topic("others")
        with pytest.raises(TopicNotFound):
            client.send(b"one", topic="others", sequence=1)
        assert client.kept("others") == 0

    def test_a_retry_that_is_too_old_is_refused(self, client: Client) -> None:
        client.send(b"one", sequence=1)
        for sequence in (1, 2):
            with pytest.raises(OutcomeUnknown):
                client.send(b"one", sequence=sequence, age_ms=600_001)
        assert client.kept() == 1

    def test_a_number_below_the_window_is_refused(self, new_client) -> None:
        client = new_client(limits=Limits(sends_in_flight=4))
        client.create_topic("orders")
        for _ in range(5):
            client.send(b"x")
        assert client.send(b"x", sequence=2).count == 1
        with pytest.raises(OutcomeUnknown):
            client.send(b"x", sequence=1)
        assert client.kept() == 5

    def test_sends_of_one_session_keep_their_order(self, client: Client) -> None:
        client.reader()
        sends = [client.start_send(b"%d" % number) for number in range(100)]
        client.driver.settle()
        assert client.pull().payloads == [b"%d" % number for number in range(100)]
        offsets = [send.result().offset for send in sends]
        assert offsets == sorted(offsets)

    def test_sessions_do_not_know_of_one_another(self, client: Client) -> None:
        first = client.send(b"one", session=b"s1", sequence=1)
        second = client.send(b"two", session=b"s2", sequence=1)
        assert first.offset != second.offset

    def test_one_session_more_than_the_limit_is_refused(self, new_client) -> None:
        client = new_client(limits=Limits(sessions=2))
        client.create_topic("orders")
        client.send(b"x", session=b"one")
        # What has sent nothing yet gives way.
        for session in (b"two", b"three", b"two"):
            client.driver.call("register_publisher", session)
        client.send(b"x", session=b"four")
        with pytest.raises(LimitExceeded):
            client.driver.call("register_publisher", b"five")

    def test_keys_and_headers_arrive_as_they_were_sent(self, client: Client) -> None:
        client.reader()
        payloads, keys = [b"", b"\x00\xff", b"three"], [b"k", None, b""]
        headers = [{"type": "new", "ü": "✓"}, None, {}]
        client.send(batch=batches.encode(payloads, keys, headers))
        got = client.pull()
        assert got.payloads == payloads
        assert [message.key for message in got] == keys
        assert [message.headers for message in got] == headers

    @pytest.mark.parametrize(
        ("batch", "refusal"),
        [
            (b"", InvalidArgument),
            (b"\xc0", InvalidArgument),
            (b"\x90", InvalidArgument),
            (b"\x91\x90", InvalidArgument),
            (b"\x91\x91\xa1x", InvalidArgument),
            (batches.encode([b"x"]) + b"\x00", InvalidArgument),
            (batches.encode([b"x"])[:-1], InvalidArgument),
            (batches.encode([b"x"] * 17), BatchTooLarge),
            (batches.encode([b"x" * 1025]), MessageTooLarge),
            (batches.encode([b"x"], [b"k" * 1025]), MessageTooLarge),
        ],
        ids=[
            "nothing",
            "nil",
            "no columns",
            "no messages",
            "text",
            "something after it",
            "cut short",
            "too many messages",
            "too large a message",
            "too large a key",
        ],
    )
    def test_a_bad_batch_is_refused_and_never_reaches_a_subscriber(
        self, new_client, batch, refusal
    ) -> None:
        client = new_client(limits=Limits(batch_messages=16, message_bytes=KIB))
        client.create_topic("orders")
        client.reader()
        with pytest.raises(refusal):
            client.send(batch=batch, sequence=1)
        with pytest.raises(refusal):
            client.send(batch=batch, sequence=1)
        assert client.pull() == []
        client.send(b"good")
        assert client.pull().payloads == [b"good"]


class TestVisibility:
    """Point 2: what was acknowledged can be pulled, and (topic id, offset) never changes."""

    def test_an_answered_send_can_be_pulled(self, client: Client) -> None:
        client.reader()
        for number in range(20):
            client.driver.call("send", b"s", number + 1, "orders", batches.encode([b"x"]), age_ms=0)
            assert len(client.pull(count=1)) == 1

    def test_an_offset_has_the_same_content_for_everyone(self, client: Client) -> None:
        for member, name in ((b"a", "billing"), (b"b", "audit")):
            client.reader(member, name, start="earliest")
        for number in range(10):
            client.send(*[b"%d-%d" % (number, index) for index in range(number + 1)])
        pulls = [client.pull(b"a"), client.pull(b"b", 3), client.pull(b"b")]
        seen = [dict(zip(got.offsets, got.payloads, strict=True)) for got in pulls]
        assert seen[0] == seen[1] | seen[2]

    def test_the_engine_says_how_durable_it_is(self, client: Client) -> None:
        durability = client.status().durability
        assert durability in ("memory", "never", "always") or durability.startswith("sync ")
        assert client.driver.call("topic", "orders").durability == durability


class TestSubscribing:
    """Point 3."""

    def test_the_first_subscription_begins_at_the_earliest_and_later_ones_at_new(
        self, client: Client
    ) -> None:
        client.send(b"old")
        first, second = client.reader(b"a", "billing"), client.reader(b"b", "audit")
        assert (first.created, first.skipped) == (True, 0)
        assert (second.created, second.skipped) == (True, 1)
        client.send(b"new")
        assert client.pull(b"a").payloads == [b"old", b"new"]
        assert client.pull(b"b").payloads == [b"new"]

    @pytest.mark.parametrize("start", ["new", "earliest"])
    def test_the_start_can_be_said(self, client: Client, start: str) -> None:
        client.reader(b"a", "other")
        client.send(b"old")
        client.reader(b"b", "billing", start=start)
        client.send(b"new")
        assert client.pull(b"b").payloads == [b"old", b"new"][start == "new" :]

    def test_the_start_can_be_an_offset(self, client: Client) -> None:
        receipt = client.send(b"zero", b"one", b"two")
        subscribed = client.reader(start=receipt.offset + 1)
        assert subscribed.offset == receipt.offset + 1
        assert subscribed.skipped == 1
        assert client.pull().payloads == [b"one", b"two"]

    def test_a_start_before_the_earliest_kept_message_says_what_is_skipped(
        self, client: Client
    ) -> None:
        client.reader(b"a", "other")
        receipt = client.send(b"zero", b"one")
        client.send(b"two")
        client.ack(part(client.pull(b"a"), 0, 1), b"a")
        assert client.kept() == 1
        subscribed = client.reader(b"b", "billing", start=receipt.offset)
        assert subscribed.skipped == (2 if "counts" in client.driver.capabilities else 1)
        assert client.pull(b"b").payloads == [b"two"]

    def test_a_start_beyond_the_topic_is_refused(self, client: Client) -> None:
        receipt = client.send(b"zero")
        client.register()
        with pytest.raises(OffsetOutOfRange):
            client.subscribe(start=receipt.offset + 1000)
        with pytest.raises(OffsetOutOfRange):
            client.subscribe(start=-1)
        assert client.driver.call("subscriptions", "orders") == []

    def test_subscribing_again_keeps_the_place_and_applies_the_options(
        self, client: Client
    ) -> None:
        client.reader(ack_wait=30.0)
        client.send(b"one", b"two")
        client.ack(part(client.pull(), 0))
        again = client.subscribe(start="new", ack_wait=0.5)
        assert again.created is False
        assert client.driver.call("subscription", "orders", "billing").ack_wait == 0.5
        client.driver.call("register_subscriber", b"a", "billing")
        assert client.pull().payloads == [b"two"]

    @pytest.mark.parametrize("ack_wait", [0.0, -1.0, 86_401.0])
    def test_a_wait_that_makes_no_sense_is_refused(self, client: Client, ack_wait: float) -> None:
        client.register()
        with pytest.raises(InvalidArgument):
            client.subscribe(ack_wait=ack_wait)
        assert client.driver.call("subscriptions", "orders") == []

    def test_one_subscription_more_than_the_limit_is_refused(self, new_client) -> None:
        client = new_client(limits=Limits(topic_subscriptions=1))
        client.create_topic("orders")
        client.reader(b"a", "billing")
        client.register(b"b", "audit")
        with pytest.raises(LimitExceeded):
            client.subscribe(b"b")
        client.driver.call("unsubscribe", "orders", "billing")
        assert client.subscribe(b"b").created


class TestDurableAndEphemeral:
    """Point 4."""

    def test_a_named_subscriber_is_durable(self, client: Client) -> None:
        assert client.register(b"a", "billing") == "billing"
        client.subscribe()
        client.send(b"one")
        client.driver.tell("close_member", b"a")
        client.driver.advance(3)
        client.register(b"b", "billing")
        assert client.pull(b"b").payloads == [b"one"]
        assert client.driver.call("subscription", "orders", "billing").durable

    def test_an_ephemeral_subscription_ends_a_while_after_its_connection(self, new_client) -> None:
        client = new_client(limits=Limits(ephemeral_idle_s=1))
        client.create_topic("orders")
        subscriber = client.register(b"a", None)
        client.subscribe(b"a")
        assert not client.driver.call("subscription", "orders", subscriber).durable
        client.driver.tell("close_member", b"a")
        client.driver.advance(0.5)
        assert client.register(b"a", None) == subscriber
        assert client.subscribe(b"a").created is False
        client.driver.tell("close_member", b"a")
        client.driver.advance(1.5)
        with pytest.raises(SubscriptionNotFound):
            client.driver.call("subscription", "orders", subscriber)

    def test_an_ephemeral_subscription_is_told_what_it_missed(self, client: Client) -> None:
        needs(client, "parts_reclaimed")
        client.reader(b"look", None)
        client.reader(b"a", "billing", start="earliest")
        client.send(b"one", b"two", b"three")
        client.ack(part(client.pull(b"a"), 0, 1))
        assert client.kept() == 1
        got = client.pull(b"look")
        assert (got.skipped, got.payloads) == (2, [b"three"])

    def test_the_last_pull_of_each_subscription_is_shown(self, client: Client) -> None:
        client.reader()
        assert client.driver.call("subscription", "orders", "billing").last_pull is None
        client.pull()
        assert client.driver.call("subscription", "orders", "billing").last_pull > 0

    @pytest.mark.parametrize("name", ["", "~x", "a b", "-x", "x" * 201])
    def test_a_name_that_breaks_the_rules_is_refused(self, client: Client, name: str) -> None:
        with pytest.raises(InvalidName):
            client.register(b"a", name)

    def test_reading_needs_a_registered_process(self, client: Client) -> None:
        with pytest.raises(ProtocolError):
            client.subscribe(b"nobody")
        with pytest.raises(ProtocolError):
            client.pull(b"nobody")


class TestGranting:
    """Point 5."""

    def test_a_pull_gets_no_more_messages_than_it_asked_for(self, client: Client) -> None:
        client.reader()
        client.send(*[b"%d" % number for number in range(10)])
        client.send(b"10", b"11")
        sizes = (3, 3, 5, 9)
        got = [client.pull(count=size).payloads for size in sizes]
        assert [len(payloads) for payloads in got] == [3, 3, 5, 1]
        assert list(chain(*got)) == [b"%d" % number for number in range(12)]

    def test_a_large_batch_can_be_pulled_bit_by_bit(self, client: Client) -> None:
        client.reader()
        payloads = [b"%d" % number * (1 + number % 7) for number in range(3_000)]
        client.send(*payloads)
        got: list[bytes] = []
        while more := client.pull(count=37):
            got += more.payloads
            client.ack(more)
        assert got == payloads
        assert client.kept() == 0

    @pytest.mark.parametrize("max_bytes", [1, 50, 100, 1_000, 20_000])
    def test_a_pull_keeps_its_bound_of_bytes_unless_one_message_is_larger(
        self, client: Client, max_bytes: int
    ) -> None:
        client.reader()
        payloads = [b"x" * (number * 37 % 500) for number in range(200)]
        for first in range(0, 200, 20):
            client.send(*payloads[first : first + 20])
        got: list[bytes] = []
        while more := client.pull(max_bytes=max_bytes):
            assert sum(more.sizes) <= max_bytes or len(more) == 1
            got += more.payloads
        assert got == payloads

    def test_one_huge_message_among_small_ones_does_not_break_the_bound(
        self, client: Client
    ) -> None:
        client.reader()
        payloads = [b"small"] * 50 + [b"x" * MIB] + [b"small"] * 50
        client.send(*payloads)
        client.send(*[b"y" * 300] * 30)
        bound = 20 * KIB
        got: list[bytes] = []
        while more := client.pull(max_bytes=bound):
            assert sum(more.sizes) <= bound or len(more) == 1
            assert {message.deliveries for message in more} == {1}
            got += more.payloads
        assert got == payloads + [b"y" * 300] * 30

    def test_what_did_not_fit_goes_to_the_others_that_wait(self, client: Client) -> None:
        members = [b"m%d" % number for number in range(400)]
        for member in members:
            client.reader(member)
        pulls = [client.start_pull(member, max_bytes=100, wait_s=5) for member in members]
        client.send(*[b"x" * 90 if number % 5 == 4 else b"s" for number in range(1_000)])
        client.driver.settle()
        got = [Messages(pull.result()) for pull in pulls]
        assert all(got)
        assert all(messages.offsets == sorted(messages.offsets) for messages in got)
        offsets = sorted(chain(*(messages.offsets for messages in got)))
        assert offsets == sorted(set(offsets))
        everything = sorted(offsets + client.pull(members[0]).offsets)
        assert everything == list(range(everything[0], everything[0] + 1_000))

    def test_a_thousand_pulls_can_wait_for_what_does_not_fit(self, client: Client) -> None:
        members = [b"m%d" % number for number in range(1_000)]
        for member in members:
            client.reader(member)
        pulls = [client.start_pull(member, max_bytes=3_900, wait_s=5) for member in members]
        # By its mean size a pull has room for hundreds of messages, and in truth for one.
        client.send(*[b"x" * 2_000] * 300, *[b"y"] * 60_000)
        client.driver.settle()
        client.driver.advance(6)
        got = [Messages(pull.result()) for pull in pulls]
        offsets = sorted(chain(*(messages.offsets for messages in got)))
        assert offsets == sorted(set(offsets))
        assert len(offsets) == 60_300

    def test_no_reply_is_larger_than_the_limit(self, new_client) -> None:
        client = new_client(limits=Limits(pull_bytes=10 * KIB))
        client.create_topic("orders")
        client.reader()
        client.send(*[b"s"] * 100, *[b"x" * KIB] * 9)
        client.send(*[b"y" * KIB] * 9)
        sizes = []
        while more := client.pull():
            sizes.append(sum(more.sizes))
            client.ack(more)
        assert max(sizes) <= 10 * KIB
        assert client.kept() == 0

    @pytest.mark.parametrize(("count", "max_bytes"), [(0, MIB), (-1, MIB), (1, 0)])
    def test_a_pull_of_nothing_is_refused(self, client: Client, count, max_bytes) -> None:
        client.reader()
        with pytest.raises(InvalidArgument):
            client.pull(count=count, max_bytes=max_bytes)

    def test_a_waiting_pull_is_answered_when_a_message_comes(self, client: Client) -> None:
        client.reader()
        pull = client.start_pull(wait_s=5)
        client.driver.settle()
        assert not pull.done
        client.send(b"one")
        assert Messages(pull.result()).payloads == [b"one"]

    def test_a_waiting_pull_is_answered_empty_in_time(self, client: Client) -> None:
        client.reader()
        pull = client.start_pull(wait_s=0.3)
        client.driver.advance(0.2)
        assert not pull.done
        client.driver.advance(0.2)
        assert Messages(pull.result()) == []
        client.send(b"one")
        assert client.pull().payloads == [b"one"]

    def test_a_cancelled_pull_is_answered_empty_and_gets_nothing_later(
        self, client: Client
    ) -> None:
        client.reader()
        pull = client.start_pull(wait_s=5)
        client.driver.tell("cancel_pull", pull.returned)
        client.driver.settle()
        assert Messages(pull.result()) == []
        client.driver.tell("cancel_pull", pull.returned)
        client.send(b"one")
        assert client.pull().payloads == [b"one"]

    def test_every_subscriber_gets_every_message(self, client: Client) -> None:
        for member, name in ((b"a", "billing"), (b"b", "audit"), (b"c", None)):
            client.reader(member, name, start="earliest")
        payloads = [b"%d" % number for number in range(50)]
        client.send(*payloads)
        for member in (b"a", b"b", b"c"):
            assert client.pull(member).payloads == payloads

    def test_processes_that_share_a_name_share_the_work(self, client: Client) -> None:
        client.reader(b"a")
        client.reader(b"b")
        client.send(*[b"%d" % number for number in range(20)])
        got = [client.pull(member, 5).payloads for member in (b"a", b"b", b"a", b"b")]
        assert list(chain(*got)) == [b"%d" % number for number in range(20)]

    def test_a_closed_connection_releases_its_leases_at_once(self, client: Client) -> None:
        client.reader(b"a")
        client.reader(b"b")
        client.send(b"one", b"two")
        client.pull(b"a")
        pull = client.start_pull(b"b", wait_s=5)
        client.driver.tell("close_member", b"a")
        client.driver.settle()
        got = Messages(pull.result())
        assert got.payloads == [b"one", b"two"]
        assert {message.deliveries for message in got} == {2}

    def test_the_pulls_of_a_closed_connection_are_answered(self, client: Client) -> None:
        client.reader(b"a")
        pulls = [client.start_pull(b"a", wait_s=5) for _ in range(3)]
        client.driver.tell("close_member", b"a")
        client.driver.settle()
        assert [Messages(pull.result()) for pull in pulls] == [[], [], []]

    def test_a_reconnect_answers_the_pulls_before_it_and_releases_their_leases(
        self, client: Client
    ) -> None:
        client.reader(b"a")
        client.send(b"one")
        client.pull(b"a")
        pull = client.start_pull(b"a", wait_s=5)
        client.register(b"a")
        client.driver.settle()
        assert Messages(pull.result()) == []
        assert client.pull(b"a").payloads == [b"one"]

    def test_a_lease_lasts_for_the_wait_and_can_be_extended(self, client: Client) -> None:
        client.reader(ack_wait=0.5)
        client.send(b"one", b"two")
        got = client.pull()
        client.driver.advance(0.3)
        assert client.extend(part(got, 0)) == 1
        client.driver.advance(0.3)
        assert client.pull().payloads == [b"two"]
        client.driver.advance(0.3)
        assert client.pull().payloads == [b"one"]

    def test_an_expired_lease_wakes_a_pull(self, client: Client) -> None:
        client.reader(b"a", ack_wait=0.3)
        client.reader(b"b", ack_wait=0.3)
        client.send(b"one")
        client.pull(b"a")
        pull = client.start_pull(b"b", wait_s=5)
        client.driver.advance(0.5)
        assert Messages(pull.result()).payloads == [b"one"]


class TestAcknowledging:
    """Point 6."""

    def test_what_is_acknowledged_is_never_delivered_again(self, client: Client) -> None:
        client.reader(ack_wait=0.3)
        client.send(b"one", b"two", b"three")
        assert client.ack(part(client.pull(), 0, 2)) == 2
        client.driver.advance(0.5)
        client.register()
        assert client.pull().payloads == [b"two"]

    def test_acknowledging_twice_counts_once(self, client: Client) -> None:
        client.reader()
        client.send(b"one", b"two")
        got = client.pull()
        assert client.ack(part(got, 0)) == 1
        assert client.ack(got) == 1
        assert client.ack(got) == 0

    def test_a_late_ack_counts_while_nobody_else_has_the_message(self, client: Client) -> None:
        client.reader(b"a", ack_wait=0.2)
        client.reader(b"b", ack_wait=0.2)
        client.send(b"one", b"two")
        got = client.pull(b"a")
        client.driver.advance(0.4)
        assert client.pull(b"b", 1).payloads == [b"one"]
        assert client.ack(got, b"a") == 1
        client.driver.advance(0.4)
        assert client.pull(b"a").payloads == [b"one"]

    def test_an_ack_by_another_process_changes_nothing(self, client: Client) -> None:
        client.reader(b"a")
        client.reader(b"b")
        client.send(b"one")
        got = client.pull(b"a")
        assert client.ack(got, b"b") == 0
        assert client.ack(got, b"a") == 1

    def test_an_ack_carried_by_a_pull_counts(self, client: Client) -> None:
        client.reader()
        client.send(b"one", b"two")
        got = client.pull()
        client.driver.tell("ack_with_pull", b"a", "orders", got.topic_id, ranges_of(got))
        assert client.pull() == []
        client.driver.advance(0.2)
        assert client.kept() == 0

    def test_a_stale_ack_carried_by_a_pull_is_passed_over(self, client: Client) -> None:
        client.reader()
        receipt = client.send(b"one")
        topic_id = client.topic_ids["orders"]
        beyond = [(receipt.offset, receipt.offset + 1000)]
        for member, topic, id_, ranges in (
            (b"a", "orders", topic_id, beyond),
            (b"a", "orders", topic_id + 1, [(0, 1)]),
            (b"a", "nowhere", topic_id, [(0, 1)]),
            (b"nobody", "orders", topic_id, [(0, 1)]),
        ):
            client.driver.tell("ack_with_pull", member, topic, id_, ranges)
        assert client.pull().payloads == [b"one"]

    def test_ranges_that_cannot_be_are_refused(self, client: Client) -> None:
        client.reader()
        receipt = client.send(b"one")
        client.pull()
        first = receipt.offset
        for ranges in ([(first, first + 1000)], [(first, first)], [(-1, first + 1)]):
            for settle in (client.ack, client.nack, client.extend):
                with pytest.raises(OffsetOutOfRange):
                    settle(ranges)
        assert client.ack([(first, first + 1)]) == 1

    def test_settling_needs_a_subscription(self, client: Client) -> None:
        client.register()
        client.send(b"one")
        for settle in (client.ack, client.nack, client.extend):
            with pytest.raises(NotSubscribed):
                settle([(0, 1)])


class TestRedelivery:
    """Point 7."""

    def test_what_is_given_back_is_delivered_again_and_counted(self, client: Client) -> None:
        client.reader()
        client.send(b"one", b"two")
        got = client.pull()
        assert client.nack(part(got, 1)) == 1
        again = client.pull()
        assert (again.payloads, again[0].deliveries) == ([b"two"], 2)

    def test_what_is_given_back_with_a_delay_comes_after_it(self, client: Client) -> None:
        client.reader()
        client.send(b"one")
        client.nack(client.pull(), delay_s=0.4)
        assert client.pull() == []
        pull = client.start_pull(wait_s=5)
        client.driver.advance(0.5)
        assert Messages(pull.result()).payloads == [b"one"]

    def test_what_was_not_looked_at_is_not_counted(self, client: Client) -> None:
        client.reader()
        client.send(b"one")
        client.nack(client.pull(), counted=False)
        assert client.pull()[0].deliveries == 1

    def test_deliveries_rise_without_a_maximum(self, client: Client) -> None:
        client.reader()
        client.send(b"one")
        for number in range(1, 30):
            got = client.pull()
            assert got[0].deliveries == number
            client.nack(got)

    def test_older_messages_come_before_newer_ones(self, client: Client) -> None:
        client.reader()
        client.send(b"0", b"1", b"2", b"3")
        client.nack(part(client.pull(), 1, 3))
        client.send(b"4")
        assert client.pull().payloads == [b"1", b"3", b"4"]


class TestReclaiming:
    """Point 8."""

    def test_messages_are_kept_until_every_durable_subscription_has_read_them(
        self, client: Client
    ) -> None:
        client.reader(b"a", "billing")
        client.reader(b"b", "audit")
        client.send(b"one")
        client.send(b"two")
        client.ack(client.pull(b"a"), b"a")
        assert client.kept() == 2
        client.ack(part(client.pull(b"b"), 0), b"b")
        assert client.kept() == 1
        client.driver.call("unsubscribe", "orders", "audit")
        assert client.kept() == 0
        assert client.status().bytes == 0

    def test_nothing_is_reclaimed_without_a_subscription(self, client: Client) -> None:
        client.send(b"one")
        assert client.kept() == 1
        client.reader(b"look", None)
        client.ack(client.pull(b"look"), b"look")
        assert client.kept() == 1
        client.reader(b"a")
        client.driver.call("unsubscribe", "orders", "billing")
        assert client.kept() == 1

    def test_the_bytes_of_read_messages_are_given_back(self, client: Client) -> None:
        client.reader()
        for _ in range(10):
            client.send(b"x" * KIB)
        full = client.status().bytes
        assert full >= 10 * KIB
        client.ack(client.pull(count=5))
        assert abs(client.status().bytes - full / 2) < full / 100
        client.ack(client.pull())
        assert client.status().bytes == 0

    def test_why_names_who_holds_messages_the_one_furthest_behind_first(
        self, client: Client
    ) -> None:
        needs(client, "counts")
        for member, name in ((b"a", "fast"), (b"b", "slow"), (b"c", "slower"), (b"d", None)):
            client.reader(member, name, start="earliest")
        client.send(*[b"x" * 100] * 10)
        client.ack(client.pull(b"a"), b"a")
        client.ack(client.pull(b"b", 4), b"b")
        holds = client.driver.call("why", "orders")
        assert [hold.subscriber for hold in holds.holds] == ["slower", "slow"]
        assert [hold.messages for hold in holds.holds] == [10, 6]
        assert holds.messages == 10
        assert all(hold.bytes > 0 for hold in holds.holds)


class TestLimits:
    """Point 9."""

    @pytest.mark.parametrize("settings", [{"max_messages": 2}, {"max_bytes": 2500}])
    def test_a_full_topic_refuses_and_takes_messages_again_when_they_are_read(
        self, client: Client, settings
    ) -> None:
        if "max_messages" in settings:
            needs(client, "max_messages")
        client.create_topic("small", **settings)
        client.reader(topic="small")
        client.send(b"x" * 1000, topic="small")
        client.send(b"x" * 1000, topic="small")
        with pytest.raises(TopicFull):
            client.send(b"x" * 1000, topic="small")
        assert client.kept("small") == 2
        client.ack(client.pull(topic="small"), topic="small")
        assert client.kept("small") == 0
        client.send(b"x" * 1000, topic="small")
        assert client.kept("small") == 1

    def test_a_full_server_refuses_and_changes_nothing(self, new_client) -> None:
        client = new_client(max_bytes=128 * KIB)
        needs(client, "server_bytes")
        client.create_topic("orders")
        client.reader()
        sends = [client.start_send(b"x" * 8 * KIB) for _ in range(16)]
        client.driver.settle()
        codes = [getattr(send.answers[0], "code", "stored") for send in sends]
        sent = codes.count("stored")
        assert codes == ["stored"] * sent + ["DiskFull"] * (16 - sent)
        assert 10 <= sent < 16
        before = client.status()
        refused = client.sequences[b"session"]
        with pytest.raises(DiskFull):
            client.send(b"x" * 8 * KIB, sequence=refused)
        after = client.status()
        assert (after.messages, after.bytes) == (before.messages, before.bytes)
        got = client.pull()
        assert len(got) == after.messages == sent
        client.ack(got)
        assert client.status().bytes == 0
        send_when_there_is_room(client, b"y" * 8 * KIB)
        with pytest.raises(DiskFull):
            client.send(b"x" * 8 * KIB, sequence=refused)
        assert client.pull().payloads == [b"y" * 8 * KIB]

    def test_a_full_server_can_be_read_and_emptied(self, new_client) -> None:
        client = new_client(max_bytes=128 * KIB)
        needs(client, "server_bytes")
        client.create_topic("orders")
        client.create_topic("others")
        client.reader()
        client.send(b"x" * 96 * KIB)
        with pytest.raises(DiskFull):
            client.send(b"x" * 96 * KIB, topic="others")
        client.reader(b"b", "audit")
        client.driver.call("delete_topic", "orders")
        client.driver.settle()
        send_when_there_is_room(client, b"x" * 96 * KIB, topic="others")

    def test_one_topic_more_than_the_limit_is_refused(self, new_client) -> None:
        client = new_client(limits=Limits(topics=2))
        client.create_topic("one")
        client.create_topic("two")
        with pytest.raises(LimitExceeded):
            client.create_topic("three")
        client.driver.call("delete_topic", "one")
        assert client.create_topic("three")

    @pytest.mark.parametrize("settings", [{"max_messages": 0}, {"max_bytes": -1}])
    def test_settings_that_cannot_be_kept_are_refused(
        self, client: Client, settings: dict[str, int]
    ) -> None:
        with pytest.raises(InvalidArgument):
            client.create_topic("small", **settings)
        with pytest.raises(TopicNotFound):
            client.driver.call("topic", "small")


class TestCreatingAndDeleting:
    """Point 10."""

    def test_creating_a_topic_again_finds_it_if_its_settings_are_equal(
        self, client: Client
    ) -> None:
        assert client.create_topic("small", max_bytes=5000)
        topic_id = client.topic_ids["small"]
        assert not client.create_topic("small", exist_ok=True, max_bytes=5000)
        assert client.topic_ids["small"] == topic_id
        for exist_ok, settings in ((True, {"max_bytes": 6000}), (False, {"max_bytes": 5000})):
            with pytest.raises(TopicExists):
                client.create_topic("small", exist_ok=exist_ok, **settings)

    @pytest.mark.parametrize("name", ["", ".x", "a b", "x" * 201])
    def test_a_topic_needs_a_valid_name(self, client: Client, name: str) -> None:
        with pytest.raises(InvalidName):
            client.create_topic(name)

    def test_subscriptions_and_messages_go_with_the_topic(self, client: Client) -> None:
        client.reader()
        client.send(b"one")
        client.driver.call("delete_topic", "orders")
        for verb in ("topic", "why", "subscriptions", "delete_topic"):
            with pytest.raises(TopicNotFound):
                client.driver.call(verb, "orders")
        with pytest.raises(TopicNotFound):
            client.send(b"two")
        with pytest.raises(TopicNotFound):
            client.pull()
        status = client.status()
        assert (status.topics, status.subscriptions, status.messages) == (0, 0, 0)
        assert status.bytes == 0

    def test_waiting_pulls_are_refused_when_their_topic_goes(self, client: Client) -> None:
        client.create_topic("others")
        client.reader()
        client.subscribe(topic="others")
        pulls = [client.start_pull(wait_s=5) for _ in range(3)]
        other = client.start_pull(topic="others", wait_s=5)
        client.driver.call("delete_topic", "orders")
        client.driver.settle()
        for pull in pulls:
            with pytest.raises(TopicNotFound):
                pull.result()
        assert not other.done

    def test_a_new_topic_of_the_same_name_is_another_one(self, client: Client) -> None:
        client.reader()
        client.send(b"old")
        old = client.pull()
        client.driver.call("delete_topic", "orders")
        client.create_topic("orders")
        assert client.topic_ids["orders"] != old.topic_id
        with pytest.raises(NotSubscribed):
            client.pull()
        client.subscribe()
        client.send(b"new")
        for settle in (client.ack, client.nack, client.extend):
            with pytest.raises(TopicNotFound):
                settle(old)
        assert client.pull().payloads == [b"new"]

    def test_a_send_under_way_when_its_topic_goes_is_answered(self, client: Client) -> None:
        send = client.start_send(b"one")
        client.driver.call("delete_topic", "orders")
        client.create_topic("orders")
        client.reader()
        client.driver.settle()
        assert send.done
        assert client.pull() == []

    def test_a_topic_with_many_batches_goes_at_once_and_its_space_soon(
        self, client: Client
    ) -> None:
        for _ in range(30):
            pending = [client.start_send(b"x") for _ in range(100)]
            client.driver.settle()
            assert all(send.done for send in pending)
        client.driver.call("delete_topic", "orders")
        assert client.status().bytes == 0
        assert client.create_topic("orders")

    def test_unsubscribing_ends_waiting_pulls_and_the_place(self, client: Client) -> None:
        client.reader(b"a")
        client.send(b"one")
        client.pull()
        pull = client.start_pull(wait_s=5)
        client.driver.call("unsubscribe", "orders", "billing")
        client.driver.settle()
        with pytest.raises(NotSubscribed):
            pull.result()
        with pytest.raises(NotSubscribed):
            client.pull()
        with pytest.raises(SubscriptionNotFound):
            client.driver.call("unsubscribe", "orders", "billing")
        with pytest.raises(SubscriptionNotFound):
            client.driver.call("subscription", "orders", "billing")
        assert client.subscribe().created
        assert client.pull()[0].deliveries == 1


class TestBoundsOnState:
    """Point 12."""

    def fragmented(self, new_client) -> Client:
        """A subscription at its bound: every other message is acknowledged."""
        client = new_client(limits=Limits(subscription_ranges=12))
        client.create_topic("orders")
        client.reader()
        self.first = client.send(*[b"%d" % number for number in range(40)]).offset
        for number in range(9):
            got = client.pull(count=1)
            if number % 2:
                client.ack(got)
        return client

    def test_at_the_bound_a_pull_returns_only_redeliveries(self, new_client) -> None:
        client = self.fragmented(new_client)
        assert client.pull() == []
        assert client.driver.call("subscription", "orders", "billing").ranges == 9
        client.register()
        assert client.pull().payloads == [b"0", b"2", b"4", b"6", b"8"]

    def test_an_ack_lets_a_pull_that_waits_at_the_bound_go_on(self, new_client) -> None:
        client = self.fragmented(new_client)
        pull = client.start_pull(count=2, wait_s=5)
        client.driver.settle()
        assert not pull.done
        client.ack([(self.first, self.first + 1)])
        client.driver.settle()
        assert Messages(pull.result()).payloads == [b"9", b"10"]

    def test_everything_is_read_in_the_end(self, new_client) -> None:
        client = self.fragmented(new_client)
        client.register()
        while got := client.pull(count=1):
            client.ack(got)
        assert client.kept() == 0


class TestTime:
    """Point 13."""

    def test_all_messages_of_a_batch_have_one_timestamp_and_it_never_decreases(
        self, client: Client
    ) -> None:
        client.reader()
        for _ in range(5):
            client.send(b"one", b"two")
            client.driver.advance(0.01)
        stamps = [message.timestamp for message in client.pull()]
        assert stamps[0::2] == stamps[1::2]
        assert stamps == sorted(stamps)
        assert stamps[0] > 1_600_000_000 * 10**9


class TestDescribing:
    """The read-only verbs."""

    def test_topics_are_listed_by_name(self, client: Client) -> None:
        for name in ("zebra", "Apple", "apple"):
            client.create_topic(name)
        names = [topic.topic for topic in client.driver.call("topics")]
        assert names == ["Apple", "apple", "orders", "zebra"]

    def test_a_topic_tells_what_it_keeps(self, client: Client) -> None:
        client.create_topic("small", max_bytes=10_000)
        client.reader(topic="small")
        client.send(b"one", b"two", topic="small")
        client.send(b"three", topic="small")
        client.driver.settle()
        topic = client.driver.call("topic", "small")
        assert (client.kept("small"), topic.subscriptions) == (3, 1)
        assert topic.topic_id == client.topic_ids["small"]
        assert topic.settings.max_bytes == 10_000
        assert topic.bytes > 0
        assert topic.first_offset < topic.next_offset
        assert topic.created > 1_600_000_000 * 10**9

    def test_a_subscription_tells_where_it_stands(self, client: Client) -> None:
        client.reader(ack_wait=12.5)
        client.send(*[b"x"] * 10)
        got = client.pull(count=6)
        client.ack(part(got, 0, 1, 3))
        client.nack(part(got, 4))
        pull = client.start_pull(b"a", count=1, wait_s=5)
        client.driver.settle()
        assert pull.done
        info = client.driver.call("subscription", "orders", "billing")
        assert (info.topic, info.subscriber, info.durable) == ("orders", "billing", True)
        assert info.cursor == got.offsets[2]
        counts = "counts" in client.driver.capabilities
        assert (info.unread, info.unread_batches) == ((7, None) if counts else (None, 1))
        assert (info.leased, info.redeliver) == (3, 0)
        assert info.ack_wait == 12.5

    def test_a_reader_that_missed_messages_is_shown_where_it_stands(self, client: Client) -> None:
        needs(client, "parts_reclaimed")
        client.reader(b"look", None)
        client.reader(b"a", "billing", start="earliest")
        client.send(*[b"x"] * 10)
        client.pull(b"look", 3)
        client.ack(client.pull(b"a", 8), b"a")
        assert client.kept() == 2
        info = client.driver.call("subscription", "orders", f"~{b'look'.hex()}")
        assert info.cursor == client.driver.call("topic", "orders").first_offset
        assert (info.unread, info.leased, info.redeliver, info.ranges) == (2, 0, 0, 0)

    def test_subscriptions_are_listed_by_topic_and_name(self, client: Client) -> None:
        client.create_topic("others")
        for member, name in ((b"b", "zebra"), (b"a", "billing")):
            client.reader(member, name)
            client.subscribe(member, "others")
        pairs = [
            (info.topic, info.subscriber) for info in client.driver.call("subscriptions", None)
        ]
        assert pairs == [
            ("orders", "billing"),
            ("orders", "zebra"),
            ("others", "billing"),
            ("others", "zebra"),
        ]
        only = client.driver.call("subscriptions", "others")
        assert [info.topic for info in only] == ["others", "others"]

    def test_status_counts_what_came_and_went(self, client: Client) -> None:
        client.reader()
        client.send(b"one", b"two")
        client.send(b"three")
        client.pull(count=2)
        status = client.status()
        assert (status.topics, status.subscriptions, status.publishers) == (1, 1, 1)
        assert (client.kept(), status.messages_in, status.messages_out) == (3, 3, 2)
        assert status.bytes_in >= 11
        assert 0 < status.bytes_out < status.bytes_in
        assert status.max_bytes is None or status.bytes <= status.max_bytes

    def test_messages_that_did_not_fit_are_not_counted_as_delivered(self, client: Client) -> None:
        client.reader()
        client.send(*[b"s"] * 20, b"x" * 1_000, *[b"s"] * 20)
        delivered = 0
        while got := client.pull(max_bytes=300):
            delivered += len(got)
        assert client.status().messages_out == delivered == 41


class TestClosing:
    """What an engine does at its end."""

    def test_closing_answers_everything(self, client: Client) -> None:
        client.reader()
        pending = [client.start_send(b"x"), client.start_pull(b"a", wait_s=50)]
        pending.append(client.start_pull(b"a", wait_s=50))
        client.driver.close()
        assert all(request.done for request in pending)
        assert pending[0].result().count == 1
