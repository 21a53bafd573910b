"""What ends a server: a signal, or something that must not happen. Each is noted once."""

import asyncio
import logging
import signal
from collections.abc import Coroutine
from typing import Any

from mbctl.server import log


class Ending:
    """Waits for the reason to end, from the moment that it is made in a running loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.failure: BaseException | None = None
        """What went wrong, if that is why."""
        self._loop = loop
        self._asked: asyncio.Future[None] = loop.create_future()
        self._failed: asyncio.Future[None] = loop.create_future()
        loop.set_exception_handler(self._on_exception)

    def heed_signals(self) -> None:
        """Let SIGTERM and Ctrl-C ask to end; for a process that is nothing but the server."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self.ask)

    @property
    def is_asked(self) -> bool:
        """Whether somebody asked to end."""
        return self._asked.done()

    def ask(self) -> None:
        """End in good order."""
        if not self._asked.done():
            self._asked.set_result(None)

    def fail(self, error: BaseException) -> None:
        """End now: after ``error`` nothing may be stored or acknowledged any more."""
        if self.failure is not None:
            return
        self.failure = error
        self._failed.set_result(None)
        log.event(logging.CRITICAL, "server failed", error=error)

    async def wait(self) -> None:
        """Return when there is a reason to end."""
        reasons = {self._asked, self._failed}
        await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)

    async def within(self, seconds: float, work: Coroutine[Any, Any, None]) -> bool:
        """Whether ``work`` was done in that time, with no failure before."""
        task = self._loop.create_task(work)
        await asyncio.wait(
            {task, self._failed}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if not task.done():
            task.cancel()
            return False
        task.result()
        return self.failure is None

    async def until(self, task: "asyncio.Future[Any]", seconds: float) -> bool:
        """Wait for ``task``, a reason to end, or the time; whether it is one of the first two."""
        reasons = {task, self._asked, self._failed}
        done, _ = await asyncio.wait(reasons, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)

    def _on_exception(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log what no code was there to catch; a broken invariant ends the process."""
        error = context.get("exception")
        exc_info = (type(error), error, error.__traceback__) if error is not None else None
        log.logger.error("internal error", exc_info=exc_info, extra={"fields": context})
        # In a turn of the engine, not in what one client sent: the state may be half changed.
        is_turn = "handle" in context and not isinstance(error, OSError)
        if error is not None and (is_turn or isinstance(error, AssertionError)):
            self.fail(error)
