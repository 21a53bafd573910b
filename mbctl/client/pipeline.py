"""The sync Pipeline: many sends of a Publisher in flight at once."""

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mbctl.client.deadline import Deadline
from mbctl.client.gathering import Gatherer, Part
from mbctl.client.packing import Key, Payload

if TYPE_CHECKING:
    from mbctl.client.publisher import Publisher


class Pipeline(Gatherer):
    """Gathers messages into batches and keeps many of them in flight.

    Leaving the block sends what is gathered, waits for all answers, and raises SendFailed
    if something was refused. If the block raises, what was gathered is dropped and what
    was sent stands.
    """

    def __init__(self, publisher: "Publisher") -> None:
        super().__init__(publisher.limits, publisher._buffers)
        self._publisher = publisher

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.flush()
            return
        self._gathered.clear()
        if not self._publisher.is_connected:
            self._publisher._abandon(self._sends)

    def send(
        self,
        topic: str,
        payload: Payload,
        key: Key | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Gather one message.

        Raises:
            MessageTooLarge, InvalidArgument: this message cannot be sent; the pipeline goes
                on without it.
            SendFailed: very much has been refused; as from ``flush``.
            OutcomeUnknown, ConnectionLost, Timeout: what was gathered could not be sent.
        """
        if self._gather(topic, payload, key, headers):
            self._send_gathered(topic)

    def send_many(self, topic: str, payloads: Iterable[Payload]) -> None:
        """Send messages as one batch, or as several where one would be above a limit.

        Raises: as ``send``.
        """
        self._send_gathered(topic)
        listed = self._checked(payloads)
        if listed:
            for part in self._split(topic, listed):
                self._send_part(part)

    def flush(self) -> None:
        """Send what is gathered and wait for all answers.

        Raises:
            SendFailed: some were refused; it holds them, and the pipeline starts anew.
            OutcomeUnknown: not all answers came in time.
            ConnectionLost, Timeout: what was gathered could not be sent.
        """
        for topic in list(self._gathered):
            self._send_gathered(topic)
        publisher = self._publisher
        try:
            publisher._wait_for(self._sends, Deadline(publisher.timeout))
        finally:
            self._collect()
            self._sends.clear()
        self._raise_refused()

    def _send_gathered(self, topic: str) -> None:
        for part in self._parts_of(topic):
            self._send_part(part)

    def _send_part(self, part: Part) -> None:
        publisher = self._publisher
        self._sends.append(publisher._submit(*part, Deadline(publisher.timeout)))
        if self._is_to_flush():
            self.flush()
