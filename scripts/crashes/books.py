"""The books: all accounts of a ledger compared, and what is wrong with them.

What is counted, each of which must be 0:

    lost         acknowledged, not readable any more, and not delivered to every subscriber
    undelivered  acknowledged, and a durable subscriber has not got it at the end
    doubled      one message of one publisher at two offsets
    reordered    two messages of one publisher in one topic, against the order of sending
    rebound      one (topic id, offset) with two contents
    undone       delivered again after an explicit ack of it was confirmed
    partial      a batch of which a part is there, or not in one piece
    unrefused    there, although the send was refused for certain
    unsent       there, although nobody sent it, or in another topic
    spoiled      a payload that is not what any publisher wrote
    hole         a topic without some offset between two that it keeps
    misplaced    acknowledged with another offset than it is found at
"""

from collections import defaultdict
from itertools import pairwise
from typing import Any

import msgspec

from crashes.ledger import SPOILED, Entry

COUNTS = (
    *("lost", "undelivered", "doubled", "reordered", "rebound", "undone", "partial"),
    *("unrefused", "unsent", "spoiled", "hole", "misplaced"),
)
_EXAMPLES_MAX = 20

# A message by who sent it: publisher and number.
Name = tuple[int, int]


class Send(msgspec.Struct):
    """One batch that somebody tried to send."""

    topic: str
    first: int
    count: int
    outcome: str = "open"
    """open, stored, refused or unknown."""
    offset: int = -1
    is_settled: bool = False
    """Whether everybody has got it, so that it need not be kept any more."""


class TopicBook:
    """What has been seen of one topic."""

    def __init__(self) -> None:
        self.at: dict[int, Entry] = {}
        self.offsets: dict[Name, int] = {}
        self.delivered: dict[str, set[Name]] = defaultdict(set)
        self.confirmed: dict[str, set[int]] = defaultdict(set)


class Books:
    """Everything the accounts of one ledger say, and every contradiction in it."""

    def __init__(self) -> None:
        self.sends: dict[Name, Send] = {}
        self.topics: dict[str, TopicBook] = defaultdict(TopicBook)
        self.wrong: dict[str, set[Any]] = {name: set() for name in COUNTS}
        self.messages_stored = 0

    @property
    def counts(self) -> dict[str, int]:
        """How many messages or batches are wrong, by what is wrong with them."""
        return {name: len(found) for name, found in self.wrong.items()}

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return not any(self.wrong.values())

    def examples(self) -> list[str]:
        """A few of the things that are wrong."""
        return [
            f"{name}: {found}" for name, those in self.wrong.items() for found in list(those)[:3]
        ][:_EXAMPLES_MAX]

    # --- taking accounts in -------------------------------------------------------------------

    def enter(self, lines: list[tuple[str, list[Any]]]) -> None:
        """Take in lines of accounts, each account's in order."""
        for actor, (kind, topic, *rest) in lines:
            if kind == "got":
                entries = [Entry(*fields) for fields in rest[1]]
                self.enter_delivery(actor, topic, rest[0], entries)
            elif kind == "confirmed":
                book = self.topics[topic]
                for first, next_offset in rest[1]:
                    book.confirmed[actor].update(range(first, next_offset))
            else:
                self._enter_send(int(actor.rpartition("-")[2]), kind, topic, rest)

    def _enter_send(self, publisher: int, kind: str, topic: str, rest: list[Any]) -> None:
        first, count = rest[:2]
        if kind == "send":
            self.sends[publisher, first] = Send(topic, first, count)
            return
        send = self.sends[publisher, first]
        assert send.outcome == "open"
        send.outcome = kind
        if kind == "stored":
            send.offset = rest[2]
            self.messages_stored += count

    def enter_delivery(self, actor: str, topic: str, topic_id: int, entries: list[Entry]) -> None:
        """Take in what ``actor`` received."""
        book = self.topics[topic]
        delivered, confirmed = book.delivered[actor], book.confirmed[actor]
        for entry in entries:
            offset = entry.offset
            if offset in confirmed:
                self.wrong["undone"].add((actor, topic, offset))
            if entry.publisher == SPOILED:
                self.wrong["spoiled"].add((actor, topic, offset))
                continue
            if book.at.setdefault(offset, entry) != entry:
                self.wrong["rebound"].add((topic, topic_id, offset))
            name = entry.publisher, entry.number
            delivered.add(name)
            if book.offsets.setdefault(name, offset) != offset:
                self.wrong["doubled"].add((topic, *name))

    # --- comparing ----------------------------------------------------------------------------

    def stored(self) -> list[tuple[Name, Send]]:
        """The sends that are acknowledged so far and that somebody has still to get."""
        return [
            (name, send)
            for name, send in self.sends.items()
            if send.outcome == "stored" and not send.is_settled
        ]

    def compare_kept(
        self,
        stored: list[tuple[Name, Send]],
        kept: dict[str, list[Entry]],
        subscribers: dict[str, list[str]],
    ) -> None:
        """Find what is lost: of ``stored``, not ``kept`` and not delivered to everybody.

        ``stored`` is what was acknowledged before the topics were read, ``kept`` what was
        read, and ``subscribers`` who has to have got what is not kept, by topic.
        """
        readable = {(e.publisher, e.number) for those in kept.values() for e in those}
        for (publisher, _), send in stored:
            missing = self._missing(publisher, send, subscribers[send.topic])
            send.is_settled = not missing
            for name in missing - readable:
                self.wrong["lost"].add((send.topic, *name))

    def _missing(self, publisher: int, send: Send, subscribers: list[str]) -> set[Name]:
        """The messages of a send that not all of ``subscribers`` have got."""
        book = self.topics[send.topic]
        names = {(publisher, number) for number in range(send.first, send.first + send.count)}
        return set().union(*(names - book.delivered[name] for name in subscribers))

    def compare_offsets(self, topic: str, entries: list[Entry]) -> None:
        """Find holes in what was read of a topic in one go."""
        for one, other in pairwise(entries):
            if other.offset != one.offset + 1:
                self.wrong["hole"].add((topic, one.offset))

    def compare_sends(self) -> None:
        """Find what is reordered, misplaced, partial, there against a refusal, or unsent.

        For the end, when all accounts are closed and all that is there has been read.
        """
        for topic, book in self.topics.items():
            self._compare_order(topic, book)
            for entry in book.at.values():
                send = self.sends.get((entry.publisher, entry.first))
                if send is None or send.topic != topic or send.count != entry.count:
                    self.wrong["unsent"].add((topic, entry.offset))
                elif send.outcome == "refused":
                    self.wrong["unrefused"].add((topic, entry.publisher, entry.number))
        for (publisher, _), send in self.sends.items():
            self._compare_batch(publisher, send)

    def _compare_order(self, topic: str, book: TopicBook) -> None:
        highest: dict[int, int] = {}
        for offset in sorted(book.at):
            entry = book.at[offset]
            if entry.number < highest.get(entry.publisher, -1):
                self.wrong["reordered"].add((topic, offset))
            highest[entry.publisher] = entry.number

    def _compare_batch(self, publisher: int, send: Send) -> None:
        offsets = self.topics[send.topic].offsets
        found = [offsets.get((publisher, send.first + n)) for n in range(send.count)]
        begin = found[0]
        if begin is None:
            is_whole = all(offset is None for offset in found)
        else:
            is_whole = found == list(range(begin, begin + send.count))
        if not is_whole:
            self.wrong["partial"].add((send.topic, publisher, send.first))
        if send.offset >= 0 and begin is not None and send.offset != begin:
            self.wrong["misplaced"].add((send.topic, publisher, send.first))

    def compare_delivered(self, subscribers: dict[str, list[str]]) -> None:
        """Find what a durable subscriber did not get, now that it has read everything."""
        for (publisher, _), send in self.stored():
            for name in self._missing(publisher, send, subscribers[send.topic]):
                self.wrong["undelivered"].add((send.topic, *name))
