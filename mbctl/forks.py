"""What a fork leaves to the child: whoever has a connection hears of it there, before all else.

A connection belongs to the process that made it. The child lets go of its copy of the socket at
once, without a word on it, so that the connection still ends with the parent; and it begins as
another client. Nothing of this costs a call anything.
"""

import os
from typing import Protocol
from weakref import WeakSet


class Inherited(Protocol):
    """What the child of a fork has a copy of."""

    def _in_child(self) -> None:
        """Give up, in the child, what is the parent process's."""


_watched: "WeakSet[Inherited]" = WeakSet()


def watch(one: Inherited) -> None:
    """Tell ``one``, as long as there is one, in the child of every fork."""
    _watched.add(one)


def _tell_all() -> None:
    for one in list(_watched):
        one._in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_tell_all)
