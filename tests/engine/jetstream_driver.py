"""Drives the jetstream engine for the conformance tests: on a real loop, in real time."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from engine_drivers import Pending

from mbctl.engine.jetstream.address import parse_address
from mbctl.engine.jetstream.api import Api
from mbctl.engine.jetstream.engine import JetStreamEngine, open_engine
from mbctl.engine.jetstream.link import Link
from mbctl.engine.jetstream.names import BUCKET
from mbctl.engine.jetstream.options import EngineOptions
from mbctl.model import MIB, NS_PER_S, Limits
from mbctl.server.runtime import AsyncioRuntime, loop_factory

# Nothing that is under way takes longer on a healthy cluster.
_PATIENCE_S = 20.0
# How long a waiting pull is given to show that it goes on waiting.
_REST_S = 0.06


class SkippingRuntime(AsyncioRuntime):
    """A runtime whose time can be made to jump, so that no test waits for a lease to end."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        # The clock that it has is an attribute for speed, and so has to be replaced as one.
        self.now_ns = self._later_ns
        self._skipped_ns = 0
        self._timers: dict[Skipped, None] = {}

    def _later_ns(self) -> int:
        return time.monotonic_ns() + self._skipped_ns

    def call_at(self, when_ns: int, call: Callable[[], None]) -> "Skipped":
        timer = Skipped(self._timers, when_ns, call)
        self._timers[timer] = None
        timer.handle = super().call_at(when_ns - self._skipped_ns, timer)
        return timer

    def skip(self, seconds: float) -> None:
        """Let it be later, and what is due by then be called."""
        self._skipped_ns += round(seconds * NS_PER_S)
        for timer in sorted(self._timers, key=lambda timer: timer.when_ns):
            if timer.when_ns <= self.now_ns():
                timer()


class Skipped:
    """A call that is due at some time, or was called off."""

    def __init__(
        self, timers: "dict[Skipped, None]", when_ns: int, call: Callable[[], None]
    ) -> None:
        self._timers = timers
        self._call = call
        self.when_ns = when_ns
        self.handle: asyncio.TimerHandle | None = None

    def __call__(self) -> None:
        if self in self._timers:
            self.cancel()
            self._call()

    def cancel(self) -> None:
        self._timers.pop(self, None)
        if self.handle is not None:
            self.handle.cancel()


class JetStreamDriver:
    """A jetstream engine on a cluster that is empty at first."""

    capabilities = frozenset({"durable"})

    def __init__(
        self, url: str, replicas: int, limits: Limits | None = None, *, purge_delay_s: float = 0
    ) -> None:
        self.url = url
        self.replicas = replicas
        self.purge_delay_s = purge_delay_s
        self.pending: list[Pending] = []
        self.waiting: list[Pending] = []
        """The pulls that may wait."""
        self._asked = limits or Limits()
        self._runner = asyncio.Runner(loop_factory=loop_factory())
        self.loop = self._runner.get_loop()
        self._run(self._empty())
        self._open()

    def _open(self) -> None:
        self.engine: JetStreamEngine = self._run(self._connect())
        self.limits = self.engine.limits
        self.is_closed = False

    async def _connect(self) -> JetStreamEngine:
        options = EngineOptions(
            address=parse_address(self.url),
            replicas=self.replicas,
            sync="2m",
            purge_delay_s=self.purge_delay_s,
        )
        self.runtime = SkippingRuntime(self.loop)
        return await open_engine(self.runtime, options, self._asked)

    async def _empty(self) -> None:
        link = Link(parse_address(self.url))
        await link.open("nothing")
        api = Api(link)
        streams = await api.call("STREAM.NAMES", {})
        for stream in streams["streams"] or ():
            # One deleted and made again at once may come back with what it had.
            verb = "PURGE" if stream == BUCKET else "DELETE"
            await api.call(f"STREAM.{verb}.{stream}")
        await link.close()

    def _run(self, work: Any) -> Any:
        return self._runner.run(work)

    # --- the Driver -----------------------------------------------------------------------

    def call(self, verb: str, *args: Any, **named: Any) -> Any:
        pending = self.start(verb, *args, **named)
        self._until(lambda: pending.done)
        return pending.result()

    def start(self, verb: str, *args: Any, **named: Any) -> Pending:
        pending = Pending()
        self.pending.append(pending)
        if named.get("wait_ms"):
            self.waiting.append(pending)

        async def begin() -> None:
            pending.returned = getattr(self.engine, verb)(*args, **named, done=pending)

        self._run(begin())
        return pending

    def tell(self, verb: str, *args: Any) -> None:
        async def begin() -> None:
            getattr(self.engine, verb)(*args)

        self._run(begin())

    def settle(self) -> None:
        rest = time.monotonic() + _REST_S
        self._until(
            lambda: (
                not self._is_busy()
                and self._has_all(but=self.waiting)
                and (self._has_all() or time.monotonic() > rest)
            )
        )

    def _has_all(self, but: Sequence[Pending] = ()) -> bool:
        return all(pending.done or pending in but for pending in self.pending)

    def _is_busy(self) -> bool:
        engine = self.engine
        return not (
            engine.lines.are_idle
            and engine.reclaiming.is_idle
            and all(not reader.keeping.is_busy for reader in engine.readers.values())
            and len(engine.tasks) <= sum(bool(r.pulls) for r in engine.readers.values())
        )

    def _until(self, condition: Callable[[], bool]) -> None:
        async def wait() -> None:
            async with asyncio.timeout(_PATIENCE_S):
                while not condition():
                    await asyncio.sleep(0.001)

        self._run(wait())

    def advance(self, seconds: float) -> None:
        self._until(lambda: not self._is_busy())

        async def pass_by() -> None:
            self.runtime.skip(seconds)

        self._run(pass_by())
        self.settle()

    def restart(self, *, crash: bool) -> None:
        if crash:
            self._run(self._kill())
        else:
            self.close()
        self.pending = [pending for pending in self.pending if pending.done]
        self._open()

    async def _kill(self) -> None:
        """End the engine as if its process were gone: not another word to the cluster."""
        engine = self.engine
        engine.is_stopped = True
        engine.reclaiming.stop()
        engine._tending.cancel()
        engine.link._out.clear()
        for task in list(engine.tasks):
            task.cancel()
        await asyncio.gather(*engine.tasks, return_exceptions=True)
        engine.link._out.clear()
        await engine.link.close()
        self.is_closed = True

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            closed = self.start("close")
            self._until(lambda: closed.done)
        unanswered = [pending for pending in self.pending if not pending.done]
        assert not unanswered, "closing left requests without an answer"

    def shut(self) -> None:
        """Let go of the loop."""
        if not self.is_closed:
            self.close()
        self._runner.close()


def driver_of(url: str, replicas: int) -> Callable[..., JetStreamDriver]:
    """Makes drivers on that cluster."""

    def make(limits: Limits | None = None, max_bytes: int = 64 * MIB) -> JetStreamDriver:
        return JetStreamDriver(url, replicas, limits)

    return make
