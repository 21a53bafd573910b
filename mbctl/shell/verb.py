"""What a verb of the shells is: operands, options, help and an example."""

from collections.abc import Callable
from typing import Literal

import msgspec

from mbctl.model import check_name
from mbctl.shell import commands as c
from mbctl.shell.commands import Kind

# What a toolbar of 80 columns has room for beside the server.
_SYNTAX_MAX = 62

Names = Literal["topics", "subscribed", "verbs", "starts", "whenFull", "nothing"]
"""What the completer offers at a place: a list of live names, or words of the grammar."""


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """One option of a verb; ``value`` is None for a switch, which takes none."""

    flag: str
    field: str
    value: str | None = None
    convert: Callable[[str], object] = str
    help: str
    repeatable: bool = False
    is_message: bool = False
    """It gives the message, which then does not stand at the end of the line."""
    names: Names = "nothing"

    @property
    def written(self) -> str:
        """How the option is written, with the label of its value."""
        return self.flag if self.value is None else f"{self.flag} {self.value}"


class Operand(msgspec.Struct, frozen=True, kw_only=True):
    """One operand of a verb. ``tail`` is the rest of the line, as it was typed."""

    label: str
    field: str
    convert: Callable[[str], object] = check_name
    required: bool = True
    repeatable: bool = False
    tail: bool = False
    names: Names = "nothing"

    @property
    def written(self) -> str:
        """How the operand is written in a syntax."""
        label = self.label + ("..." if self.repeatable else "")
        return label if self.required else f"[{label}]"


class Verb(msgspec.Struct, frozen=True, kw_only=True):
    """One verb: how it is written, what it makes, and how it is explained."""

    name: str
    kinds: tuple[Kind, ...] = c.KINDS
    command: Callable[..., c.Command]
    operands: tuple[Operand, ...] = ()
    options: tuple[Option, ...] = ()
    summary: str
    details: str = ""
    example: str
    aliases: tuple[str, ...] = ()

    @property
    def syntax(self) -> str:
        """How the verb is written, in one line: with its options, if they fit."""
        if len(self.full_syntax) <= _SYNTAX_MAX:
            return self.full_syntax
        operands = [operand.written for operand in self.operands]
        return " ".join([self.name, "[OPTIONS]", *operands])

    @property
    def full_syntax(self) -> str:
        """The same with its options, however many there are."""
        options = [f"[{o.written}]" for o in self.options if not o.is_message]
        messages = [o.written for o in self.options if o.is_message]
        if messages:
            options.append(f"[{' | '.join(messages)}]")
        operands = [operand.written for operand in self.operands]
        return " ".join([self.name, *options, *operands])

    @property
    def tail(self) -> Operand | None:
        """The operand that takes the rest of the line as it is, if the verb has one."""
        return next((operand for operand in self.operands if operand.tail), None)


def normalize(word: str) -> str:
    """``word`` as verbs are compared: createTopic, create-topic and CREATE_TOPIC are one."""
    return word.lower().replace("-", "").replace("_", "")
