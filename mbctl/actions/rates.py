"""How fast messages come, once a second, in place of the messages."""

import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from mbctl.actions.output import Column, Output

if TYPE_CHECKING:
    from mbctl.client.pulled import PulledMessage

_INTERVAL_S = 1.0

_COLUMNS = (
    Column("time", "", "time"),
    Column("messages_per_s", " messages/s", "count"),
    Column("bytes_per_s", "/s", "size"),
    Column("messages", " messages in all", "count"),
    Column("bytes", " in all", "size"),
)


class RateWriter:
    """Counts messages instead of writing them; a context in which a line a second is shown.

    It takes the place of a ``MessageWriter``. What was counted counts as shown.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._messages = self._bytes = 0
        self._shown = (time.monotonic(), 0, 0)
        self._failure: OSError | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rate", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def write_one(self, message: "PulledMessage[Any]") -> None:
        """Count a message.

        Raises:
            BrokenPipeError: nobody reads what is shown.
        """
        if self._failure is not None:
            raise self._failure
        self._messages += 1
        self._bytes += len(message.payload)

    def flush(self) -> None:
        """Nothing is held back."""

    def _run(self) -> None:
        while not self._stopped.wait(_INTERVAL_S):
            try:
                self._show()
            except OSError as error:
                self._failure = error
                return

    def _show(self) -> None:
        before, messages, size = self._shown
        self._shown = now, total, total_size = time.monotonic(), self._messages, self._bytes
        seconds = max(now - before, 0.001)
        row = {
            "time": time.time_ns(),
            "messages_per_s": round((total - messages) / seconds),
            "bytes_per_s": round((total_size - size) / seconds),
            "messages": total,
            "bytes": total_size,
        }
        self._output.line(_COLUMNS, row)
