"""What a shell holds while it runs, and what each command does with it."""

from typing import TYPE_CHECKING, assert_never

import msgspec

from mbctl.actions import receiving, sending, status, subscriptions, text, topics
from mbctl.actions.output import Column, Output
from mbctl.errors import InvalidArgument, MbctlError, RequestRefused
from mbctl.shell import ShellOptions
from mbctl.shell import commands as c
from mbctl.shell.commands import Command, Kind
from mbctl.shell.help import explain, overview

if TYPE_CHECKING:
    from mbctl import Admin, Publisher, Subscriber
    from mbctl.client.messages import Batch
    from mbctl.model import SubscriptionInfo

# As many as one reply can hold of small messages; memory for a few MiB.
_PULL_CHUNK = 10_000

_HISTORY_SHOWN_MAX = 500
_HISTORY_COLUMNS = (Column("number", "NUMBER", "count"), Column("line", "LINE"))
