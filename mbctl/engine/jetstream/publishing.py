"""The verbs of publishers: sends, and the topics they go to."""

from mbctl import batch as batches
from mbctl.batch import Buffer
from mbctl.engine.interface import Created, Done
from mbctl.engine.jetstream import names
from mbctl.engine.jetstream.api import STREAM_NOT_FOUND
from mbctl.engine.jetstream.parts import Parts
from mbctl.errors import BatchTooLarge, MbctlError, OutcomeUnknown, ServerStopping
from mbctl.model import KIB, NS_PER_MS, NS_PER_S, Receipt, TopicSettings

# What goes with a batch: its id and its number in a group.
_HEADERS_BYTES = 1 * KIB


class Publishing(Parts):
    """Registers publishers, stores sends, creates, purges and deletes topics."""

    def register_publisher(self, session: bytes, done: Done[None]) -> None:
        """Make a publisher session known."""
        try:
            self._check_running()
            self.sessions.use(session, self.runtime.now_ns())
        except MbctlError as error:
            done(error)
        else:
            done(None)

    def _check_running(self) -> None:
        if self.is_stopped:
            raise ServerStopping

    def send(
        self,
        session: bytes,
        sequence: int,
        topic: str,
        batch: Buffer,
        *,
        age_ms: int,
        done: Done[Receipt],
    ) -> None:
        """Validate and store a batch; answer when the cluster has."""
        now_ns = self.runtime.now_ns()
        try:
            self._check_running()
            known = self.sessions.use(session, now_ns)
            until_ns = now_ns - age_ms * NS_PER_MS + round(self.options.retry_s * NS_PER_S)
            if until_ns <= now_ns:
                raise OutcomeUnknown(what=f"send {sequence}, first tried too long ago,")
            if not known.begin(sequence, done, self.limits.sends_in_flight):
                return
        except MbctlError as error:
            done(error)
            return
        size = memoryview(batch).nbytes
        try:
            count = batches.validate(batch, self.limits)
            most = self.link.max_payload - _HEADERS_BYTES
            if size > most:
                raise BatchTooLarge(size=size, what="bytes", limit=most)
        except MbctlError as refusal:
            known.end(sequence, refusal)
            return

        def answered(answer: Receipt | MbctlError) -> None:
            if isinstance(answer, Receipt):
                self.messages_in += count
                self.bytes_in += size
            known.end(sequence, answer)

        id = f"{session.hex()}:{sequence}"
        self.lines.of(topic).add(id, batch, count, until_ns=until_ns, done=answered)

    def create_topic(
        self, topic: str, settings: TopicSettings, exist_ok: bool, done: Done[Created]
    ) -> None:
        """Create a topic, or find that it exists with equal settings."""

        async def verb() -> Created:
            wall_ns = self.runtime.wall_ns()
            made, created = await self.registry.create(
                topic, settings, exist_ok=exist_ok, wall_ns=wall_ns
            )
            return Created(made.topic_id, created)

        self.answer(done, verb)

    def delete_topic(self, topic: str, done: Done[None]) -> None:
        """Delete a topic with its messages and subscriptions."""

        async def verb() -> None:
            found, _ = await self.registry.look(topic)
            # It was there: if it is no more, an attempt without an answer has deleted it.
            await self.api.maybe(f"STREAM.DELETE.{found.stream}", None, STREAM_NOT_FOUND)
            self.forget_topic(topic, found.topic_id)
            self.tell("deleted", topic, found.topic_id)
            for keys in names.topic_keys(found.topic_id):
                await self.api.remove(names.BUCKET, keys)
            await self.registry.unname(found)

        self.answer(done, verb)

    def purge_topic(self, topic: str, done: Done[int]) -> None:
        """Give up all messages of a topic, read or not; how many batches that were."""

        async def verb() -> int:
            found, stream = await self.registry.look(topic)
            # Up to there, so that another attempt takes nothing that was sent after the first.
            below = int(stream["state"]["last_seq"]) + 1
            purged = await self.api.call(f"STREAM.PURGE.{found.stream}", {"seq": below})
            self.tell("purged", topic, found.topic_id, below=below)
            self.forget_below(topic, found.topic_id, below)
            return int(purged["purged"])

        self.answer(done, verb)
