"""The question before something is destroyed, where the context asks for it."""

import sys

from mbctl.actions.output import Output
from mbctl.shell import commands as c
from mbctl.shell.commands import Command


def target_of(command: Command) -> str | None:
    """The topic of which ``command`` destroys something or skips messages, if it does."""
    match command:
        case c.DeleteTopic() | c.PurgeTopic() | c.Unsubscribe() | c.Drop() | c.Seek():
            return command.topic
        case _:
            return None


def confirmed(command: Command, output: Output) -> bool:
    """Have the name typed of what ``command`` destroys, if it does; whether it may go on."""
    target = target_of(command)
    if target is None:
        return True
    output.stderr.write(f"type {target} to go on: ")
    output.stderr.flush()
    if sys.stdin.readline().strip() == target:
        return True
    output.note("nothing was changed")
    return False
