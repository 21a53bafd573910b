"""A broker that is too simple to be wrong: a record for every message of every subscription.

No structure, no index, no heap: whatever is asked is found by walking everything there is.
Answers are plain values, refusals are the errors of mbctl. All messages of a batch have
the same size, so that the mean size by which core fills a pull is exact.
"""

from types import SimpleNamespace as Record

from mbctl.errors import (
    InvalidArgument,
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
from mbctl.model import (
    NS_PER_S,
    AtTime,
    Limits,
    SubscribeOptions,
    TopicSettings,
    check_options,
    check_settings,
)

SESSION_IDLE_NS = 660 * NS_PER_S
EPHEMERAL_IDLE_NS = 30 * NS_PER_S
PIECE_BYTES = 32
LOOK_NS_MIN, LOOK_NS_MAX = NS_PER_S, 600 * NS_PER_S


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
        self.trims: list[Record] = []
        self.unserved: list[Record] = []

    # --- publishers and topics --------------------------------------------------------------

    def use_session(self, session: bytes, now: int) -> Record:
        if session not in self.sessions:
            if len(self.sessions) == self.limits.sessions:
                unused = [id for id, known in self.sessions.items() if known.highest == 0]
                if not unused:
                    raise LimitExceeded(what="publisher sessions", limit=self.limits.sessions)
                del self.sessions[unused[0]]
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
            known.answers[sequence] = self.store(name, count, message_size, now, wall)
        except MbctlError as error:
            known.answers[sequence] = error
            raise
        known.topic_ids[sequence] = self.topics[name].id
        return (*known.answers[sequence], True)

    def store(self, name, count, message_size, now, wall):
        topic = self.topic(name)
        self.make_room(topic, count, count * message_size)
        self.places += 1
        first = len(topic.messages)
        timestamp = max([wall, *(batch.timestamp for batch in topic.batches[-1:])])
        batch = Record(place=self.places, first=first, next=first + count, timestamp=timestamp)
        batch.size, batch.message_size, batch.freed = count * message_size, message_size, False
        topic.batches.append(batch)
        topic.messages += [batch] * count
        if topic.settings.max_age is not None and topic.look is None:
            topic.look = next_look(topic, now + wait_of(topic, wall))
        return name, first, count

    def reveal(self, name, next_offset, now):
        topic = self.topic(name)
        topic.visible = max(topic.visible, next_offset)
        return self.serve(list(topic.subscriptions.values()), now)

    def topic(self, name: str) -> Record:
        if name not in self.topics:
            raise TopicNotFound(topic=name)
        return self.topics[name]

    def create_topic(self, name: str, settings: TopicSettings, exist_ok: bool):
        check_settings(settings)
        if name in self.topics:
            if exist_ok and self.topics[name].settings == settings:
                return self.topics[name].id, False
            raise TopicExists(topic=name)
        if len(self.topics) == self.limits.topics:
            raise LimitExceeded(what="topics", limit=self.limits.topics)
        self.topic_ids += 1
        topic = Record(name=name, id=self.topic_ids, settings=settings, first=0, visible=0)
        topic.messages, topic.batches, topic.subscriptions = [], [], {}
        topic.saved_first, topic.look, topic.looked = 0, None, None
        topic.retaining = topic.is_aging = False
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
                end_lease(sub, entry)
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
        check_options(options)
        if options.dead_letter == name:
            raise InvalidArgument(reason="a topic cannot be its own dead-letter topic")
        if options.dead_letter is not None:
            self.topic(options.dead_letter)
        sub = topic.subscriptions.get(reader.subscriber)
        created, skipped = sub is None, 0
        if sub is None:
            offset, asked = self.start_offset(topic, self.start_of(topic, reader, options.start))
            skipped = offset - min(asked, topic.first)
            if len(topic.subscriptions) == self.limits.topic_subscriptions:
                what, limit = f"subscriptions of topic {name!r}", self.limits.topic_subscriptions
                raise LimitExceeded(what=what, limit=limit)
            if len(self.all_subscriptions()) == self.limits.subscriptions:
                raise LimitExceeded(what="subscriptions", limit=self.limits.subscriptions)
            sub = Record(topic=topic, subscriber=reader.subscriber, durable=reader.durable)
            sub.owner = None if reader.durable else member
            sub.floor = sub.held = offset
            sub.entries, sub.pulls, sub.skipped, sub.lost = {}, [], 0, 0
            sub.dropped, sub.expired, sub.sought = 0, 0, False
            sub.fresh, sub.options = set(), None
            topic.subscriptions[reader.subscriber] = sub
        new = round(options.ack_wait * NS_PER_S), options.max_deliveries, options.dead_letter
        is_changed, sub.options = sub.options != new, new
        sub.ack_wait, sub.most, sub.dead_letter = new
        for entry in sub.entries.values() if is_changed else ():
            if entry.state in ("ready", "exhausted") and entry.state != state_at_end(sub, entry):
                end_lease(sub, entry)
        is_stored = sub.durable and is_changed
        if is_stored:
            save(sub)
        self.serve_soon(sub)
        return sub.subscriber, topic.id, cursor(sub), skipped, created, is_stored

    def serve_soon(self, sub):
        if sub.pulls and self.grantable(sub):
            self.unserved.append(sub)

    def start_of(self, topic, reader, start):
        if start is not None:
            return start
        subs = topic.subscriptions.values()
        others = [sub for sub in subs if sub.durable] if reader.durable else subs
        return "new" if others else "earliest"

    def start_offset(self, topic, start):
        """The offset that is meant, and the one that was asked for."""
        if isinstance(start, AtTime):
            since = [o for o, batch in enumerate(topic.messages) if batch.timestamp >= start.ns]
            since = [o for o in since if topic.first <= o < topic.visible]
            start = min(since, default=topic.visible)
        asked = {"new": topic.visible, "earliest": topic.first}.get(start, start)
        if not 0 <= asked <= topic.visible:
            raise OffsetOutOfRange(topic=topic.name, offset=asked, next_offset=topic.visible)
        return max(asked, topic.first), asked

    def seek(self, name, subscriber, start, now):
        sub = self.subscription(name, subscriber)
        topic = sub.topic
        offset, asked = self.start_offset(topic, start)
        sub.floor, sub.entries, sub.fresh, sub.skipped, sub.sought = offset, {}, set(), 0, True
        sub.held = min(sub.held, offset)
        if sub.durable:
            save(sub)
        return offset, max(0, topic.first - asked), self.serve([sub], now)

    def subscription(self, name, subscriber):
        sub = self.topic(name).subscriptions.get(subscriber)
        if sub is None:
            raise SubscriptionNotFound(topic=name, subscriber=subscriber)
        return sub

    def unsubscribe(self, name, subscriber):
        sub = self.subscription(name, subscriber)
        return sub, self.end(sub, NotSubscribed(topic=name, subscriber=subscriber))

    def end(self, sub, refusal):
        wakes = {pull.token: refusal for pull in sub.pulls}
        sub.pulls.clear()
        del sub.topic.subscriptions[sub.subscriber]
        return wakes

    # --- granting -----------------------------------------------------------------------------

    def pull(self, member, name, max_messages, max_bytes, wait, token, now):
        sub = self.subscribed(member, name)
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
        is_cut = self.is_alone(sub, run) and len(run) > 1
        if len(run) > 1 and count_ranges(sub) >= self.limits.subscription_ranges - 1:
            return run[:1] if run[0] == cursor(sub) else []
        return run[:1] if is_cut else run

    def is_alone(self, sub, offsets):
        """Whether what is to be granted was delivered before, and that has a maximum."""
        entry = sub.entries.get(offsets[0]) if offsets else None
        return entry is not None and entry.deliveries > 0 and sub.most is not None

    def grant(self, sub, pull, now):
        room = Record(messages=pull.max_messages, bytes=pull.max_bytes, pieces=[])
        while room.messages > 0 and room.bytes > 0:
            grantable = self.grantable(sub)
            is_alone = self.is_alone(sub, grantable)
            if is_alone and room.pieces:
                break
            offsets = take(room, sub, grantable)
            if not offsets:
                break
            if offsets[0] not in sub.entries:
                self.add(sub, offsets)
            self.cut(sub, offsets[-1] + 1)
            for entry in (sub.entries[offset] for offset in offsets):
                entry.state, entry.member, entry.due = "leased", pull.member, now + sub.ack_wait
                entry.deliveries += 1
            if is_alone:
                break
        skipped, sub.skipped = sub.skipped, 0
        return self.grant_of(sub, skipped, room.pieces)

    def grant_of(self, sub, skipped, pieces):
        return sub.topic.name, sub.topic.id, sub.subscriber, skipped, pieces

    def add(self, sub, offsets):
        """Let these offsets be one lease, ready and never granted."""
        self.labels += 1
        for offset in offsets:
            sub.entries[offset] = Record(
                state="ready", member=None, deliveries=0, due=None, label=self.labels, in_hand=False
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
        return sub

    def ack(self, member, name, topic_id, ranges, now):
        sub = self.settled(member, name, topic_id, ranges)
        old_cursor, old_next = cursor(sub), next_of(sub)
        offsets = {o for first, next in ranges for o in range(max(first, old_cursor), next)}
        runs = runs_of(o for o in offsets if o < old_next or not sub.sought)
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
            if counted and state_at_end(sub, entry) != "ready":
                end_lease(sub, entry)
                continue
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

    # --- what was delivered as often as it may be -----------------------------------------------

    def exhausted(self):
        """What nobody has in hand, by subscription, lease and batch."""
        found = {}
        for sub in self.all_subscriptions():
            for offset, entry in sorted(sub.entries.items()):
                if entry.state == "exhausted" and not entry.in_hand:
                    key = id(sub), entry.label, sub.topic.messages[offset].first
                    found.setdefault(key, (sub, []))[1].append(offset)
        return list(found.values())

    def take_piece(self, name, subscriber, piece):
        """Have a piece in hand, which is a run of what is exhausted within one batch."""
        for sub, offsets in self.exhausted():
            if (sub.topic.name, sub.subscriber) == (name, subscriber) and offsets[0] == piece[3]:
                batch, entry = sub.topic.messages[offsets[0]], sub.entries[offsets[0]]
                for offset in offsets:
                    sub.entries[offset].in_hand = True
                where = (batch.place, batch.first, batch.next, offsets[0], offsets[-1] + 1)
                return sub, (*where, batch.timestamp, entry.deliveries)
        return None

    def is_current(self, sub):
        topic = self.topics.get(sub.topic.name)
        return topic is sub.topic and topic.subscriptions.get(sub.subscriber) is sub

    def dead_letter(self, sub, first, next, message_size, now, wall):
        if not self.is_current(sub):
            return None
        entries = [sub.entries.get(offset) for offset in range(first, next)]
        if not all(entry is not None and entry.state == "exhausted" for entry in entries):
            labels = {e.label for e in entries if e is not None and e.state == "exhausted"}
            for entry in sub.entries.values():
                entry.in_hand = entry.in_hand and entry.label not in labels
            return None
        target = self.topic(sub.dead_letter)
        cuts = is_across(sub, first) + is_across(sub, next)
        if cuts and count_ranges(sub) + cuts >= self.limits.subscription_ranges:
            raise self.too_many_ranges()
        _, stored, _ = self.store(target.name, next - first, message_size, now, wall)
        self.cut(sub, first)
        self.cut(sub, next)
        for offset in range(first, next):
            self.acknowledge(sub, offset)
            sub.fresh.discard(offset)
            if sub.durable:
                sub.saved.acked.add(offset)
        self.serve_soon(sub)
        return target.id, stored

    def park(self, sub, first, next):
        if not self.is_current(sub):
            return
        for edge in (first, next):
            is_cut = is_across(sub, edge) and sub.entries[edge].state == "exhausted"
            if is_cut and self.may_cut(sub):
                self.cut(sub, edge)
        inside = [sub.entries[o] for o in range(first, next) if o in sub.entries]
        labels = {entry.label for entry in inside if entry.state == "exhausted"}
        for entry in sub.entries.values():
            if entry.state == "exhausted" and entry.label in labels:
                entry.state = "parked"

    def decide(self, name, subscriber, ranges, is_dropped, now):
        """Release parked messages, or acknowledge them."""
        sub = self.subscription(name, subscriber)
        parked = [o for o, entry in sorted(sub.entries.items()) if entry.state == "parked"]
        if ranges is not None:
            runs = runs_of(o for r in ranges for o in range(*r) if o >= cursor(sub))
            edges = [e for run in runs for e in run if is_across(sub, e) and e in parked]
            if edges and count_ranges(sub) + len(edges) > self.growth_max:
                raise self.too_many_ranges()
            for edge in edges:
                self.cut(sub, edge)
            parked = [o for o in parked if any(first <= o < next for first, next in runs)]
        for offset in parked:
            if is_dropped:
                self.acknowledge(sub, offset)
            else:
                sub.entries[offset].state, sub.entries[offset].deliveries = "ready", 0
        return len(parked), self.serve([sub], now)

    # --- what is given up -----------------------------------------------------------------------

    def read_next(self, topic):
        """The offset below which every durable subscription has read all, as it is stored."""
        held = [sub.held for sub in topic.subscriptions.values() if sub.durable]
        return max(topic.first, min(held)) if held else topic.first

    def trim(self, topic, offset, reason):
        if offset <= topic.first:
            return
        topic.first, topic.visible = offset, max(topic.visible, offset)
        places = []
        for batch in topic.batches:
            if batch.next <= offset and not batch.freed:
                batch.freed = True
                places.append(batch.place)
        for sub in topic.subscriptions.values():
            unread = 0
            for lower in range(sub.floor, offset):
                entry = sub.entries.pop(lower, None)
                unread += entry is None or entry.state != "acked"
                sub.skipped += entry is None or (entry.state != "acked" and entry.deliveries == 0)
            sub.dropped += unread if reason == "dropped" else 0
            sub.expired += unread if reason == "expired" else 0
            sub.floor = max(sub.floor, offset)
        earlier = [trim for trim in self.trims if trim.topic_id == topic.id]
        if earlier and earlier[-1].reason == reason:
            earlier[-1].first = offset
            earlier[-1].places += places
        else:
            self.trims.append(Record(topic_id=topic.id, first=offset, reason=reason, places=places))

    def make_room(self, topic, count, size):
        """Give up what is only retained, batch by batch, and then what is not read."""
        settings = topic.settings
        most_messages = settings.max_messages or count + len(topic.messages)
        most_bytes = settings.max_bytes or size + sum(batch.size for batch in topic.batches)
        is_too_large = count > most_messages or size > most_bytes
        kept = [batch for batch in topic.batches if not batch.freed]
        wanted = max(topic.first, len(topic.messages) + count - most_messages)
        while sum(batch.size for batch in kept) + size > most_bytes and kept:
            wanted = max(wanted, kept.pop(0).next)
        read_next = self.read_next(topic)
        if wanted <= read_next and not is_too_large:
            self.trim(topic, wanted, "read")
            return
        if is_too_large or settings.when_full == "refuse":
            what, most = "bytes", most_bytes
            kept = 0 if is_too_large else len(topic.messages) - read_next
            if kept + count > most_messages:
                what, most = "messages", most_messages
            raise TopicFull(topic=topic.name, what=what, limit=most)
        self.trim(topic, read_next, "read")
        ends = [batch.first for batch in topic.batches if batch.first >= wanted]
        self.trim(topic, min(ends, default=len(topic.messages)), "dropped")

    def reclaim(self, topic):
        settings, read_next = topic.settings, self.read_next(topic)
        if settings.retain_age is None and settings.retain_bytes is None:
            self.trim(topic, read_next, "read")
            return
        read = read_batches(topic, read_next)
        if settings.retain_bytes is not None:
            while read and sum(batch.size for batch in read) > settings.retain_bytes:
                self.trim(topic, read.pop(0).next, "read")
        topic.retaining = topic.retaining or topic.first < read_next
        if settings.retain_age is not None and read and not topic.is_aging:
            topic.is_aging, topic.look = True, next_look(topic, 0)

    def give_up_retained(self):
        retaining = [topic for topic in self.topics.values() if topic.retaining]
        is_any = any(self.read_next(topic) > topic.first for topic in retaining)
        for topic in retaining:
            self.trim(topic, self.read_next(topic), "read")
            topic.retaining = False
        return is_any

    def purge(self, name, now):
        topic = self.topic(name)
        count = len(topic.messages) - topic.first
        self.trim(topic, len(topic.messages), "purged")
        return count, self.serve(list(topic.subscriptions.values()), now)

    def look(self, topic, now, wall):
        """Give up what is too old; whether that may have been unread."""
        settings, first = topic.settings, topic.first
        topic.look, topic.looked = None, now
        for batch in [batch for batch in topic.batches if not batch.freed]:
            if settings.max_age and batch.timestamp + settings.max_age * NS_PER_S <= wall:
                self.trim(topic, batch.next, "expired")
        is_expired = topic.first > first
        read = read_batches(topic, self.read_next(topic))
        for batch in list(read):
            if settings.retain_age and batch.timestamp + settings.retain_age * NS_PER_S <= wall:
                self.trim(topic, batch.next, "read")
                read.remove(batch)
        topic.is_aging = topic.is_aging and bool(read)
        kept = [batch for batch in topic.batches if not batch.freed]
        if kept and (settings.max_age or (settings.retain_age and read)):
            topic.look = next_look(topic, now + wait_of(topic, wall, bool(read)))
        return is_expired

    def peek(self, name, start, max_messages, max_bytes):
        topic = self.topic(name)
        offset, _ = self.start_offset(topic, start)
        room = Record(messages=max_messages, bytes=max_bytes, pieces=[])
        take(room, Record(topic=topic, entries={}), list(range(offset, topic.visible)))
        return [(*piece[:6], 0) for piece in room.pieces]

    def move_batches(self, topic_id, moves):
        topics = [topic for topic in self.topics.values() if topic.id == topic_id]
        kept = {b.first: b for topic in topics for b in topic.batches if not b.freed}
        left = []
        for first, place, new_place in moves:
            if first in kept and kept[first].place == place:
                kept[first].place = new_place
            else:
                left.append(new_place)
        return left

    # --- time and space -----------------------------------------------------------------------

    def take_changes(self, is_behind):
        """What is acknowledged and given up, and not stored.

        Of a subscription that is behind what is given up, nobody has seen where it stands now.
        """
        acknowledged = []
        for topic in self.topics.values():
            for sub in [sub for sub in topic.subscriptions.values() if sub.durable]:
                if sub.fresh:
                    acknowledged.append((topic.id, sub.subscriber, runs_of(sub.fresh)))
                sub.fresh = set()
                if not is_behind(topic.name, sub.subscriber):
                    sub.held = cursor(sub)
                save(sub)
            self.reclaim(topic)
            topic.saved_first = topic.first
        trims = [(t.topic_id, t.first, t.reason, sorted(t.places)) for t in self.trims]
        self.trims = []
        return sorted(acknowledged), sorted(trims, key=lambda trim: trim[0])

    def restart(self, now):
        """Forget all but what is stored: also what was acknowledged and not taken."""
        self.members, self.gone, self.trims, self.unserved = {}, {}, [], []
        for topic in self.topics.values():
            topic.first, topic.visible = topic.saved_first, len(topic.messages)
            topic.retaining = False
            for batch in topic.batches:
                batch.freed = batch.next <= topic.first
            is_aging = topic.settings.max_age or topic.settings.retain_age
            topic.look = 0 if is_aging and topic.first < len(topic.messages) else None
            topic.looked, topic.is_aging = None, False
            for sub in list(topic.subscriptions.values()):
                if sub.durable:
                    self.restore(sub, sub.saved)
                else:
                    del topic.subscriptions[sub.subscriber]
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

    def restore(self, sub, saved):
        """As it was stored: what was not counted is as if it never had been granted."""
        sub.entries, sub.pulls, sub.skipped, sub.lost, sub.fresh = {}, [], 0, 0, set()
        sub.floor, sub.sought = saved.floor, False
        sub.dropped, sub.expired = saved.dropped, saved.expired
        known = saved.acked | set(saved.counts)
        before = None
        for offset in range(sub.floor, max(known, default=-1) + 1):
            value = "acked" if offset in saved.acked else saved.counts.get(offset)
            if value != before or offset == sub.floor:
                self.labels += 1
            before = value
            entry = Record(state="ready", member=None, deliveries=0, due=None, label=self.labels)
            entry.in_hand = False
            sub.entries[offset] = entry
            if value == "acked":
                entry.state = "acked"
            elif value is not None:
                entry.deliveries, is_parked = value
                entry.state = "parked" if is_parked else "ready"
                if not is_parked:
                    end_lease(sub, entry)
        sub.held = cursor(sub)

    def deadlines(self):
        """All but those of the sessions."""
        subs = self.all_subscriptions()
        dues = [e.due for sub in subs for e in sub.entries.values() if e.due is not None]
        dues += [topic.look for topic in self.topics.values() if topic.look is not None]
        return dues + [p.until for sub in subs for p in sub.pulls] + list(self.gone.values())

    def expire(self, now, wall, has_due):
        """Do what is due. A subscription also has leases due that were given up meanwhile."""
        touched, self.unserved = self.unserved, []
        touched = [sub for sub in touched if self.is_current(sub)]
        for topic in self.topics.values():
            if topic.look is not None and topic.look <= now and self.look(topic, now, wall):
                touched += topic.subscriptions.values()
        for sub in self.all_subscriptions():
            due = [e for e in sub.entries.values() if e.due is not None and e.due <= now]
            for entry in due:
                end_lease(sub, entry)
            touched += [sub] if due or has_due(sub.topic.name, sub.subscriber) else []
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
    if entry is None or entry.state == "acked":
        return False
    return not sub.sought if entry.member is None else entry.member == member


def state_at_end(sub, entry):
    """What becomes of a lease that ends."""
    if sub.most is None or entry.deliveries < sub.most:
        return "ready"
    return "parked" if sub.dead_letter is None else "exhausted"


def end_lease(sub, entry):
    entry.state, entry.due, entry.in_hand = state_at_end(sub, entry), None, False


def unread_of(sub):
    """The offsets that were granted at some time, or passed over, and are not acknowledged."""
    return [offset for offset, entry in sub.entries.items() if entry.state != "acked"]


def save(sub):
    """Note what is stored of a durable subscription: how it stands now."""
    counts = {}
    for offset in unread_of(sub):
        entry = sub.entries[offset]
        if entry.deliveries >= 2 or entry.state == "parked":
            counts[offset] = (entry.deliveries, entry.state == "parked")
    sub.saved = Record(floor=cursor(sub), counts=counts, dropped=sub.dropped, expired=sub.expired)
    sub.saved.acked = {o for o in sub.entries if is_acked(sub, o) and o > cursor(sub)}


def read_batches(topic, read_next):
    return [batch for batch in topic.batches if batch.next <= read_next and not batch.freed]


def next_look(topic, when):
    return when if topic.looked is None else max(when, topic.looked + LOOK_NS_MIN)


def wait_of(topic, wall, has_read=False):
    """How long until the oldest batch is too old."""
    oldest = min(batch.timestamp for batch in topic.batches if not batch.freed)
    ages = [topic.settings.max_age, topic.settings.retain_age if has_read else None]
    age = min(age for age in ages if age is not None)
    return min(round(age * NS_PER_S) + oldest - wall, LOOK_NS_MAX)


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
