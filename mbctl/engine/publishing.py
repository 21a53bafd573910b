"""The verbs of publishers: sends, and the topics they go to."""

from mbctl import batch as batches
from mbctl.batch import Buffer
from mbctl.engine.interface import Created, Done
from mbctl.engine.parts import Parts
from mbctl.errors import DiskFull, MbctlError, RequestRefused, ServerStopping
from mbctl.journal.records import BatchHead, TopicCreated, TopicDeleted
from mbctl.model import NS_PER_MS, Receipt, TopicSettings


class Publishing(Parts):
    """Registers publishers, stores sends, creates, purges and deletes topics."""

    def register_publisher(self, session: bytes, done: Done[None]) -> None:
        """Make a publisher session known."""
        now_ns = self._runtime.now_ns()
        self._answer(done, lambda: self.core.register_publisher(session, now_ns))
        self._follow_up()

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
        """Validate and store a batch; answer at the end of the turn that makes it durable."""
        now_ns = self._runtime.now_ns()
        try:
            if self._is_stopped:
                raise ServerStopping
            count, size, refusal = self._admit(batch)
            stored = self.core.send(
                session,
                sequence,
                topic,
                count=count,
                size=size,
                refusal=refusal,
                age_ns=age_ms * NS_PER_MS,
                now_ns=now_ns,
                wall_ns=self._runtime.wall_ns(),
            )
        except MbctlError as error:
            done(error)
            return
        receipt = stored.receipt
        if stored.is_new:
            head = BatchHead(
                stored.topic_id, receipt.offset, count, stored.timestamp, session, sequence
            )
            self.core.set_place(stored.topic_id, self._journal.append_batch(head, batch))
            self._turns.current.reveals[stored.topic_id] = receipt.offset + count
            self._messages_in += count
            self._bytes_in += size
        # A retry waits as well: its original may be part of a commit under way.
        self._turns.answer_when_durable(done, receipt)

    def _admit(self, batch: Buffer) -> tuple[int, int, RequestRefused | None]:
        """Count and size of a batch, and why it must not be stored if it must not."""
        size = memoryview(batch).nbytes
        try:
            count = batches.validate(batch, self._limits)
            self._make_room(size)
        except RequestRefused as refusal:
            return 0, size, refusal
        return count, size, None

    def _make_room(self, size: int) -> None:
        """Refuse what there is no room for, having given up what is only retained."""
        try:
            self._journal.check_room(size)
        except DiskFull:
            if not self.core.give_up_retained():
                raise
            # In memory that makes room at once; on a disk a little later, for the next.
            self._turns.end()
            self._journal.check_room(size)

    def create_topic(
        self, topic: str, settings: TopicSettings, exist_ok: bool, done: Done[Created]
    ) -> None:
        """Create a topic, or find that it exists with equal settings."""

        def verb() -> Created:
            if topic not in self.core.topics:
                self._journal.check_room(0)
            found, created = self.core.create_topic(
                topic, settings, exist_ok=exist_ok, created=self._runtime.wall_ns()
            )
            if created:
                self._journal.append(TopicCreated(found.topic_id, topic, settings, found.created))
            return Created(found.topic_id, created)

        self._answer_when_durable(done, verb)

    def delete_topic(self, topic: str, done: Done[None]) -> None:
        """Delete a topic; its space is released over the next turns."""

        def verb() -> None:
            self._turns.reserve(0)
            deleted, wakes = self.core.delete_topic(topic)
            self._journal.append(TopicDeleted(deleted.topic_id))
            self._turns.current.deleted.append(deleted)
            self._deliveries.wake(wakes)

        self._answer_when_durable(done, verb)

    def purge_topic(self, topic: str, done: Done[int]) -> None:
        """Give up all messages of a topic, read or not; how many that were."""

        def verb() -> int:
            self._turns.reserve(0)
            count, wakes = self.core.purge(topic, self._runtime.now_ns())
            self._deliveries.wake(wakes)
            return count

        self._answer_when_durable(done, verb)
