"""Whether the cluster has the leaders that it cannot serve without, asked from outside."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterable

import nats
import nats.errors
from ledger import longest_pause

_PAUSE_S = 0.1
_PATIENCE_S = 0.5


class Leaders:
    """Asks leaders all the time, in a thread, by way of every node."""

    def __init__(self, urls: Iterable[str], verbs: Iterable[str]) -> None:
        self._answers: dict[str, list[float]] = {verb: [] for verb in verbs}
        """When each question was answered, which only its leader does."""
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._ask_all(tuple(urls)),))
        self._thread.start()

    def away(self, since: float) -> float:
        """The longest time, in seconds, that one of them was not there, since then."""
        return max(longest_pause(answers, since) for answers in self._answers.values())

    def close(self) -> None:
        """Ask no more."""
        self._is_over.set()
        self._thread.join()

    async def _ask_all(self, urls: tuple[str, ...]) -> None:
        await asyncio.gather(*(self._ask_by_way_of(url) for url in urls))

    async def _ask_by_way_of(self, url: str) -> None:
        client = await nats.connect(
            url, max_reconnect_attempts=-1, reconnect_time_wait=_PAUSE_S, error_cb=_heed_nothing
        )
        while not self._is_over.is_set():
            await asyncio.gather(*(self._ask(client, verb) for verb in self._answers))
            await asyncio.sleep(_PAUSE_S)
        with contextlib.suppress(nats.errors.Error, OSError):
            await client.close()

    async def _ask(self, client: nats.NATS, verb: str) -> None:
        with contextlib.suppress(nats.errors.Error, OSError):
            reply = await client.request(f"$JS.API.{verb}", timeout=_PATIENCE_S)
            if b'"error"' not in reply.data:
                self._answers[verb].append(time.monotonic())


async def _heed_nothing(error: Exception) -> None:
    """That a node is gone is what is being watched."""
