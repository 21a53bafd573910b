"""A broker that is too simple to be wrong: a record for every message of every subscription.

No structure, no index, no heap: whatever is asked is found by walking everything there is.
Answers are plain values, refusals are the errors of mbctl. All messages of a batch have
the same size, so that the mean size by which core fills a pull is exact.
"""

from types import SimpleNamespace as Record

from mbctl.errors import (
    LimitExceeded,
    MbctlError,
    NotSubscribed,
    OffsetOutOfRange,
    OutcomeUnknown,
    ProtocolError,
    SubscriptionNotFound,
    TopicExists,
    TopicFull,
    TopicNotFound,
)
from mbctl.model import NS_PER_S, Limits, SubscribeOptions, TopicSettings

SESSION_IDLE_NS = 660 * NS_PER_S
EPHEMERAL_IDLE_NS = 30 * NS_PER_S
PIECE_BYTES = 32


class NaiveBroker:
    """The verbs of core.Broker. Wakes are a dict from token to answer."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.topics: dict[str, Record] = {}
        self.sessions: dict[bytes, Record] = {}
        self.members: dict[bytes, Record] = {}
        self.gone: dict[bytes, int] = {}
        self.topic_ids = self.places = self.labels = 0
        reserve = min(64, limits.subscription_ranges // 4)
        self.growth_max = limits.subscription_ranges - reserve

    # --- publishers and topics --------------------------------------------------------------

    def use_session(self, session: bytes, now: int) -> Record:
        if session not in self.sessions:
            if len(self.sessions) == self.limits.sessions:
                raise LimitExceeded(what="publisher sessions", limit=self.limits.sessions)
            self.sessions[session] = Record(highest=0, answers={}, topic_ids={}, used=now)
        self.sessions[session].used = now
        return self.sessions[session]

    def send(self, session, sequence, name, count, message_size, age, now, wall):
        known = self.use_session(session, now)
        if age > self.limits.session_idle_s * NS_PER_S:
            raise OutcomeUnknown(what=f"send {sequence}, first tried too long ago,")
        window = sorted(known.answers)[-self.limits.sends_in_flight :]
        if sequence in window:
            answer = known.answers[sequence]
            if isinstance(answer, MbctlError):
                raise answer
            return answer[0] or name, *answer[1:], False
        if sequence <= known.highest:
            raise OutcomeUnknown(what=f"send {sequence}, which is older than the last answers,")
        known.highest = sequence
        try:
            known.answers[sequence] = self.store(name, count, message_size, wall)
        except MbctlError as error:
            known.answers[sequence] = error
            raise
        known.topic_ids[sequence] = self.topics[name].id
        return (*known.answers[sequence], True)

    def store(self, name, count, message_size, wall):
        topic = self.topic(name)
        kept, settings = topic.messages[topic.first :], topic.settings
        if settings.max_messages is not None and len(kept) + count > settings.max_messages:
            raise TopicFull(topic=name, what="messages", limit=settings.max_messages)
        size = sum(batch.size for batch in topic.batches if not batch.freed)
        if settings.max_bytes is not None and size + count * message_size > settings.max_bytes:
            raise TopicFull(topic=name, what="bytes", limit=settings.max_bytes)
        self.places += 1
        first = len(topic.messages)
        timestamp = max([wall, *(batch.timestamp for batch in topic.batches[-1:])])
        batch = Record(place=self.places, first=first, next=first + count, timestamp=timestamp)
        batch.size, batch.message_size, batch.freed = count * message_size, message_size, False
        topic.batches.append(batch)
        topic.messages += [batch] * count
        return name, first, count

    def reveal(self, name, next_offset, now):
        topic = self.topic(name)
        topic.visible = next_offset
        return self.serve(list(topic.subscriptions.values()), now)

    def topic(self, name: str) -> Record:
        if name not in self.topics:
            raise TopicNotFound(topic=name)
        return self.topics[name]

    def create_topic(self, name: str, settings: TopicSettings, exist_ok: bool):
        if name in self.topics:
            if exist_ok and self.topics[name].settings == settings:
                return self.topics[name].id, False
            raise TopicExists(topic=name)
        if len(self.topics) == self.limits.topics:
            raise LimitExceeded(what="topics", limit=self.limits.topics)
        self.topic_ids += 1
        topic = Record(name=name, id=self.topic_ids, settings=settings, first=0, visible=0)
        topic.messages, topic.batches, topic.subscriptions = [], [], {}
        self.topics[name] = topic
        return topic.id, True

    def delete_topic(self, name: str):
        topic = self.topic(name)
        wakes = {}
        for sub in list(topic.subscriptions.values()):
            wakes |= self.end(sub, TopicNotFound(topic=name))
        del self.topics[name]
        return [batch.place for batch in topic.batches if not batch.freed], wakes

    # --- subscribers --------------------------------------------------------------------------

    def all_subscriptions(self):
        return [sub for topic in self.topics.values() for sub in topic.subscriptions.values()]

    def register_subscriber(self, member, name, now):
        wakes = self.close_member(member, now)
        self.gone.pop(member, None)
        subscriber = name if name is not None else f"~{member.hex()}"
        self.members[member] = Record(subscriber=subscriber, durable=name is not None)
        return subscriber, wakes

    def close_member(self, member, now):
        if member not in self.members:
            return {}
        wakes, touched = {}, []
        for sub in self.all_subscriptions():
            for pull in [pull for pull in sub.pulls if pull.member == member]:
                sub.pulls.remove(pull)
                wakes[pull.token] = self.grant_of(sub, 0, [])
            leased = [e for e in sub.entries.values() if leased_by(e, member)]
            for entry in leased:
                entry.state, entry.due = "ready", None
            touched += [sub] if leased else []
        del self.members[member]
        if any(sub.owner == member for sub in self.all_subscriptions()):
            self.gone[member] = now + EPHEMERAL_IDLE_NS
        return wakes | self.serve(touched, now)

    def known(self, member: bytes) -> Record:
        if member not in self.members:
            raise ProtocolError(reason="this needs a registered subscriber")
        return self.members[member]

    def subscribe(self, member, name, options: SubscribeOptions):
        reader, topic = self.known(member), self.topic(name)
        sub = topic.subscriptions.get(reader.subscriber)
        created, skipped = sub is None, 0
        if sub is None:
            start, skipped = self.start_offset(topic, reader, options.start)
            if len(topic.subscriptions) == self.limits.topic_subscriptions:
                what, limit = f"subscriptions of topic {name!r}", self.limits.topic_subscriptions
                raise LimitExceeded(what=what, limit=limit)
            if len(self.all_subscriptions()) == self.limits.subscriptions:
                raise LimitExceeded(what="subscriptions", limit=self.limits.subscriptions)
            sub = Record(topic=topic, subscriber=reader.subscriber, durable=reader.durable)
            sub.owner = None if reader.durable else member
            sub.floor, sub.entries, sub.pulls, sub.skipped, sub.lost = start, {}, [], 0, 0
            sub.fresh, sub.stored, sub.ack_wait = set(), set(), None
            topic.subscriptions[reader.subscriber] = sub
        self.skip_reclaimed(sub)
        ack_wait = round(options.ack_wait * NS_PER_S)
        is_stored = sub.durable and sub.ack_wait != ack_wait
        sub.ack_wait = ack_wait
        if is_stored:
            sub.stored |= sub.fresh
        return sub.subscriber, topic.id, cursor(sub), skipped, created, is_stored

    def start_offset(self, topic, reader, start):
        if start is None:
            subs = topic.subscriptions.values()
            others = [sub for sub in subs if sub.durable] if reader.durable else subs
            start = "new" if others else "earliest"
        asked = {"new": topic.visible, "earliest": topic.first}.get(start, start)
        if not 0 <= asked <= topic.visible:
            raise OffsetOutOfRange(topic=topic.name, offset=asked, next_offset=topic.visible)
        offset = max(asked, topic.first)
        return offset, offset - min(asked, topic.first)

    def unsubscribe(self, name, subscriber):
        sub = self.topic(name).subscriptions.get(subscriber)
        if sub is None:
            raise SubscriptionNotFound(topic=name, subscriber=subscriber)
        return sub, self.end(sub, NotSubscribed(topic=name, subscriber=subscriber))

    def end(self, sub, refusal):
        wakes = {pull.token: refusal for pull in sub.pulls}
        sub.pulls.clear()
        del sub.topic.subscriptions[sub.subscriber]
        return wakes

    def skip_reclaimed(self, sub):
        for offset in range(sub.floor, sub.topic.first):
            entry = sub.entries.pop(offset, None)
            sub.skipped += entry is None or (entry.state != "acked" and entry.deliveries == 0)
        sub.floor = max(sub.floor, sub.topic.first)

    # --- granting -----------------------------------------------------------------------------

    def pull(self, member, name, max_messages, max_bytes, wait, token, now):
        sub = self.subscribed(member, name)
        self.skip_reclaimed(sub)
        pull = Record(member=member, max_messages=max_messages, max_bytes=max_bytes, token=token)
        answer = self.grant(sub, pull, now)
        if answer[3] or answer[4] or wait == 0:
            return answer
        pull.until = now + wait
        sub.pulls.append(pull)
        return None

    def cancel_pull(self, token):
        for sub in self.all_subscriptions():
            for pull in sub.pulls:
                if pull.token == token:
                    sub.pulls.remove(pull)
                    return {token: self.grant_of(sub, 0, [])}
        return {}

    def subscribed(self, member, name):
        reader, topic = self.known(member), self.topic(name)
        if reader.subscriber not in topic.subscriptions:
            raise NotSubscribed(topic=name, subscriber=reader.subscriber)
        return topic.subscriptions[reader.subscriber]

    def serve(self, subs, now):
        wakes = {}
        for sub in subs:
            if sub.pulls:
                self.skip_reclaimed(sub)
            while sub.pulls and (self.grantable(sub) or sub.skipped):
                pull = sub.pulls.pop(0)
                wakes[pull.token] = self.grant(sub, pull, now)
        return wakes

    def grantable(self, sub):
        """The offsets that a pull without bounds would get first."""
        ready = [o for o, entry in sorted(sub.entries.items()) if entry.state == "ready"]
        if not ready:
            may_grant = count_ranges(sub) < self.growth_max
            return list(range(next_of(sub), sub.topic.visible)) if may_grant else []
        label = sub.entries[ready[0]].label
        run = [o for o in ready if sub.entries[o].label == label]
        if len(run) > 1 and count_ranges(sub) >= self.limits.subscription_ranges - 1:
            return run[:1] if run[0] == cursor(sub) else []
        return run

    def grant(self, sub, pull, now):
        room = Record(messages=pull.max_messages, bytes=pull.max_bytes, pieces=[])
        while room.messages > 0 and room.bytes > 0:
            offsets = take(room, sub, self.grantable(sub))
            if not offsets:
                break
            if offsets[0] not in sub.entries:
                self.add(sub, offsets)
            self.cut(sub, offsets[-1] + 1)
            for entry in (sub.entries[offset] for offset in offsets):
                entry.state, entry.member, entry.due = "leased", pull.member, now + sub.ack_wait
                entry.deliveries += 1
        skipped, sub.skipped = sub.skipped, 0
        return self.grant_of(sub, skipped, room.pieces)

    def grant_of(self, sub, skipped, pieces):
        return sub.topic.name, sub.topic.id, sub.subscriber, skipped, pieces

    def add(self, sub, offsets):
        """Let these offsets be one lease, ready and never granted."""
        self.labels += 1
        for offset in offsets:
            sub.entries[offset] = Record(
                state="ready", member=None, deliveries=0, due=None, label=self.labels
            )

    def cut(self, sub, edge):
        """Let the lease that goes across ``edge`` be two, if one does."""
        if is_across(sub, edge):
            self.labels += 1
            old = sub.entries[edge].label
            for offset, entry in sub.entries.items():
                if offset >= edge and entry.label == old:
                    entry.label = self.labels

    # --- settling -----------------------------------------------------------------------------

    def settled(self, member, name, topic_id, ranges):
        sub = self.subscribed(member, name)
        if sub.topic.id != topic_id:
            raise TopicNotFound(topic=name)
        for first, next in ranges:
            if not 0 <= first < next <= sub.topic.visible:
                offset = max(first, next - 1)
                raise OffsetOutOfRange(topic=name, offset=offset, next_offset=sub.topic.visible)
        self.skip_reclaimed(sub)
        return sub

    def ack(self, member, name, topic_id, ranges, now):
        sub = self.settled(member, name, topic_id, ranges)
        old_cursor, old_next = cursor(sub), next_of(sub)
        runs = runs_of(o for first, next in ranges for o in range(max(first, old_cursor), next))
        before = count_ranges(sub)
        self.add(sub, range(old_next, max([old_next, *(next for _, next in runs)])))
        growth = sum(max(0, self.growth(sub, member, old_next, *run)) for run in runs)
        if growth > 0 and before + growth > self.growth_max:
            for offset in range(old_next, next_of(sub)):
                del sub.entries[offset]
            raise self.too_many_ranges()
        count = 0
        for first, next in runs:
            for edge, inner in ((first, first), (next, next - 1)):
                if may_settle(sub, member, inner):
                    self.cut(sub, edge)
            for offset in range(first, next):
                if may_settle(sub, member, offset):
                    self.acknowledge(sub, offset)
                    count += 1
        return count, self.serve([sub], now)

    def acknowledge(self, sub, offset):
        sub.entries[offset].state, sub.entries[offset].due = "acked", None
        sub.fresh.add(offset)

    def growth(self, sub, member, old_next, first, next):
        growth = 1 if old_next < next == next_of(sub) else 0
        if may_settle(sub, member, first):
            if first == cursor(sub):
                growth -= sub.entries[first].label == sub.entries[next - 1].label
            else:
                growth += -1 if is_acked(sub, first - 1) else is_across(sub, first)
        if may_settle(sub, member, next - 1):
            growth += -1 if is_acked(sub, next) else is_across(sub, next)
        return growth

    def too_many_ranges(self):
        what = "acknowledged ranges and leases of a subscription"
        return LimitExceeded(what=what, limit=self.limits.subscription_ranges)

    def nack(self, member, name, topic_id, ranges, delay, counted, now):
        sub = self.settled(member, name, topic_id, ranges)
        entries = self.isolate(sub, member, ranges)
        for entry in entries:
            entry.state = "delayed" if delay else "ready"
            entry.due = now + delay if delay else None
            entry.deliveries -= not counted
        return len(entries), self.serve([sub], now)

    def extend(self, member, name, topic_id, ranges, now):
        sub = self.settled(member, name, topic_id, ranges)
        entries = self.isolate(sub, member, ranges)
        for entry in entries:
            entry.due = now + sub.ack_wait
        return len(entries)

    def isolate(self, sub, member, ranges):
        runs = runs_of(offset for first, next in ranges for offset in range(first, next))
        edges = [e for run in runs for e in run if is_across(sub, e)]
        edges = [e for e in edges if leased_by(sub.entries[e], member)]
        if edges and count_ranges(sub) + len(edges) > self.growth_max:
            raise self.too_many_ranges()
        for edge in edges:
            self.cut(sub, edge)
        entries = [sub.entries[o] for run in runs for o in range(*run) if o in sub.entries]
        return [entry for entry in entries if leased_by(entry, member)]

    def take_back(self, member, name, subscriber, ranges, now):
        """Undo a grant from somewhere on; what cannot be cut for it stays leased."""
        sub = self.topics[name].subscriptions[subscriber]
        for first, next in runs_of(o for run in ranges for o in range(*run)):
            start = first
            if is_across(sub, first) and leased_by(sub.entries[first], member):
                if count_ranges(sub) < self.limits.subscription_ranges - 1:
                    self.cut(sub, first)
                else:
                    while start < next and sub.entries[start].label == sub.entries[first].label:
                        start += 1
            for offset in range(start, next):
                entry = sub.entries.get(offset)
                if entry is not None and leased_by(entry, member):
                    entry.state, entry.due = "ready", None
                    entry.deliveries -= 1
        return self.serve([sub], now)

    def lose(self, member, name, subscriber, granted, lost, skipped, now):
        """Undo a grant, and let what is lost be as if acknowledged, lease by lease."""
        if member not in self.members:
            return [], {}
        sub = self.topics[name].subscriptions[subscriber]
        self.skip_reclaimed(sub)
        first, next = max(lost[0], cursor(sub)), lost[1]
        if next > next_of(sub) and self.may_cut(sub):
            self.add(sub, range(next_of(sub), next))
        for edge in (first, next):
            if is_across(sub, edge) and self.may_cut(sub):
                self.cut(sub, edge)
        passed = []
        left = {o: entry for o, entry in sub.entries.items() if entry.state != "acked"}
        outside = {entry.label for o, entry in left.items() if not first <= o < next}
        for offset in range(first, min(next, next_of(sub))):
            if offset in left and left[offset].label not in outside:
                self.acknowledge(sub, offset)
                passed.append(offset)
        sub.lost += len(passed)
        sub.skipped += skipped
        return runs_of(passed), self.take_back(member, name, subscriber, [granted], now)

    def may_cut(self, sub):
        return count_ranges(sub) < self.limits.subscription_ranges - 1

    # --- time and space -----------------------------------------------------------------------

    def take_changes(self):
        """What of each durable subscription is acknowledged and not stored, and all trims."""
        acknowledged, trimmed = [], []
        for topic in self.topics.values():
            durable = [sub for sub in topic.subscriptions.values() if sub.durable]
            for sub in durable:
                if sub.fresh:
                    acknowledged.append((topic.id, sub.subscriber, runs_of(sub.fresh)))
                sub.stored |= sub.fresh
                sub.fresh = set()
            lowest = min([cursor(sub) for sub in durable], default=0)
            if lowest > topic.first:
                topic.first = lowest
                dead = [b for b in topic.batches if b.next <= lowest and not b.freed]
                for batch in dead:
                    batch.freed = True
                trimmed.append((topic.id, lowest, [batch.place for batch in dead]))
        return sorted(acknowledged), sorted(trimmed)

    def restart(self, now):
        """Forget all but what is stored: also what was acknowledged and not taken."""
        self.members, self.gone = {}, {}
        for topic in self.topics.values():
            topic.visible = len(topic.messages)
            for sub in list(topic.subscriptions.values()):
                if not sub.durable:
                    del topic.subscriptions[sub.subscriber]
                    continue
                sub.entries, sub.pulls, sub.skipped, sub.lost, sub.fresh = {}, [], 0, 0, set()
                for first, next in runs_of(o for o in sub.stored if o >= sub.floor):
                    self.add(sub, range(next_of(sub), next))
                    for offset in range(first, next):
                        sub.entries[offset].state = "acked"
        ids = {topic.id for topic in self.topics.values()}
        for session, known in list(self.sessions.items()):
            known.answers = {
                sequence: answer if known.topic_ids[sequence] in ids else ("", *answer[1:])
                for sequence, answer in known.answers.items()
                if not isinstance(answer, MbctlError)
            }
            known.highest, known.used = max(known.answers, default=0), now
            if not known.answers:
                del self.sessions[session]

    def deadlines(self):
        """All but those of the sessions."""
        subs = self.all_subscriptions()
        dues = [e.due for sub in subs for e in sub.entries.values() if e.due is not None]
        return dues + [p.until for sub in subs for p in sub.pulls] + list(self.gone.values())

    def expire(self, now):
        touched = []
        for sub in self.all_subscriptions():
            due = [e for e in sub.entries.values() if e.due is not None and e.due <= now]
            for entry in due:
                entry.state, entry.due = "ready", None
            touched += [sub] if due else []
        wakes = self.serve(touched, now)
        for sub in self.all_subscriptions():
            for pull in [pull for pull in sub.pulls if pull.until <= now]:
                sub.pulls.remove(pull)
                wakes[pull.token] = self.grant_of(sub, 0, [])
        for member in [member for member, until in self.gone.items() if until <= now]:
            del self.gone[member]
            for sub in [sub for sub in self.all_subscriptions() if sub.owner == member]:
                refusal = NotSubscribed(topic=sub.topic.name, subscriber=sub.subscriber)
                wakes |= self.end(sub, refusal)
        for session, known in list(self.sessions.items()):
            if known.used + SESSION_IDLE_NS <= now:
                del self.sessions[session]
        return wakes


# --- what a subscription's records say --------------------------------------------------------


def is_acked(sub, offset):
    return offset in sub.entries and sub.entries[offset].state == "acked"


def leased_by(entry, member):
    return entry.state == "leased" and entry.member == member


def may_settle(sub, member, offset):
    entry = sub.entries.get(offset)
    return entry is not None and entry.state != "acked" and entry.member in (None, member)


def is_across(sub, edge):
    """Whether a lease holds the offsets on both sides of ``edge``."""
    sides = (sub.entries.get(edge - 1), sub.entries.get(edge))
    if any(entry is None or entry.state == "acked" for entry in sides):
        return False
    return sides[0].label == sides[1].label


def cursor(sub):
    offset = sub.floor
    while is_acked(sub, offset):
        offset += 1
    return offset


def next_of(sub):
    return max([cursor(sub), *(offset + 1 for offset in sub.entries)])


def count_ranges(sub):
    entries = [sub.entries[offset] for offset in range(cursor(sub), next_of(sub))]
    kinds = ["acked" if entry.state == "acked" else entry.label for entry in entries]
    return sum(kind != before for kind, before in zip(kinds, [None, *kinds], strict=False))


def runs_of(offsets):
    """The same offsets as ranges, as few and as long as possible."""
    offsets = set(offsets)
    firsts = sorted(offset for offset in offsets if offset - 1 not in offsets)
    nexts = sorted(offset + 1 for offset in offsets if offset + 1 not in offsets)
    return list(zip(firsts, nexts, strict=True))


def take(room, sub, offsets):
    """Put what fits of ``offsets`` into ``room``, batch by batch; the offsets that went in."""
    taken = []
    while offsets and room.messages > 0 and room.bytes > 0:
        batch = sub.topic.messages[offsets[0]]
        wanted = [offset for offset in offsets if offset < batch.next]
        count = min(len(wanted), room.messages)
        while count > 0 and count * batch.message_size + PIECE_BYTES > room.bytes:
            # Only the first piece of an answer is less than what there is of a batch.
            count = 0 if room.pieces else max(count - 1, 1)
            if count == 1:
                break
        if count == 0:
            break
        first, last = wanted[0], wanted[count - 1]
        delivered = sub.entries[first].deliveries if first in sub.entries else 0
        piece = (batch.place, batch.first, batch.next, first, last + 1)
        room.pieces.append((*piece, batch.timestamp, delivered + 1))
        room.messages -= count
        room.bytes -= count * batch.message_size + PIECE_BYTES
        taken += wanted[:count]
        offsets = offsets[count:]
        if count < len(wanted):
            break
    return taken
