"""The asyncio face made to block, so that the tests of the sync face are tests of it as well.

All clients share one event loop, which runs in a thread of its own. What a coroutine returns
is the call's result; a batch, a message, a pipeline and a follow are made to block as well.
"""

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

from mbctl import aio

_LOOPS = (aio.Following, aio.FollowingBatches)
_MADE_TO_BLOCK = (aio.Batch, aio.Message, aio.Pipeline, *_LOOPS)


_loop: asyncio.AbstractEventLoop | None = None


def loop() -> asyncio.AbstractEventLoop:
    """The event loop that all of this runs in."""
    global _loop
    if _loop is None:
        _loop = asyncio.new_event_loop()
        threading.Thread(target=_loop.run_forever, name="loop of the tests", daemon=True).start()
    return _loop


def tasks() -> int:
    """How many tasks there are, each a call that has not returned."""

    async def count() -> int:
        return len(asyncio.all_tasks()) - 1

    return asyncio.run_coroutine_threadsafe(count(), loop()).result()


def run(make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call inside the loop, and wait for what comes of it."""

    async def call() -> Any:
        made = make(*args, **kwargs)
        return await made if inspect.isawaitable(made) else made

    return wrap(asyncio.run_coroutine_threadsafe(call(), loop()).result())


def wrap(value: Any) -> Any:
    """``value``, made to block if it has coroutines."""
    return Blocking(value) if isinstance(value, _MADE_TO_BLOCK) else value


class Blocking:
    """Something of the asyncio face whose coroutines are run to their ends."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not inspect.ismethod(value):
            return wrap(value)
        return lambda *args, **kwargs: run(value, *args, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_inner":
            super().__setattr__(name, value)
        else:
            setattr(self._inner, name, value)

    def __iter__(self) -> Iterator[Any]:
        return self if isinstance(self._inner, _LOOPS) else map(wrap, self._inner)

    def __next__(self) -> Any:
        try:
            return run(self._inner.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None

    def __len__(self) -> int:
        return len(self._inner)

    def __bool__(self) -> bool:
        return bool(self._inner)

    def __enter__(self) -> Any:
        run(self._inner.__aenter__)
        return self

    def __exit__(self, *failure: Any) -> None:
        run(self._inner.__aexit__, *failure)


class _BlockingClient(Blocking):
    """A client that connects when it is made, as those of the sync face do."""

    _kind: Callable[..., Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(type(self)._kind(*args, **kwargs))
        run(self._inner.__aenter__)


class Publisher(_BlockingClient):
    """``mbctl.aio.Publisher``, made to block."""

    _kind = aio.Publisher


class Subscriber(_BlockingClient):
    """``mbctl.aio.Subscriber``, made to block."""

    _kind = aio.Subscriber


class Admin(_BlockingClient):
    """``mbctl.aio.Admin``, made to block."""

    _kind = aio.Admin
