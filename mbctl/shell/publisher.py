"""What the publisher shell does with the verbs that are its own."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mbctl.actions import sending, topics
from mbctl.actions.output import Output
from mbctl.errors import InvalidArgument, MessageTooLarge
from mbctl.model import TopicSettings
from mbctl.shell import ShellOptions
from mbctl.shell import commands as c

if TYPE_CHECKING:
    from mbctl import Publisher


class PublisherSide:
    """A registered publisher and its verbs."""

    def __init__(self, options: ShellOptions, output: Output) -> None:
        self._options = options
        self._output = output
        self._name = options.name
        self._publisher = self._connect(options.name)

    @property
    def label(self) -> str:
        """Who is registered, in a word or two."""
        return f"publisher {self._name}" if self._name else "publisher"

    def register(self, name: str | None) -> None:
        """Begin a new session under ``name``; the old one goes on if that fails."""
        publisher = self._connect(name)
        self._publisher.close()
        self._publisher, self._name = publisher, name
        self._output.done({"publisher": name}, f"registered as {self.label}")

    def execute(self, command: c.Command) -> None:
        """Carry out ``command`` and show what it did."""
        match command:
            case c.Send():
                self._send(command)
            case c.CreateTopic(topic):
                values = msgspec.structs.asdict(command)
                del values["topic"]
                settings = TopicSettings(**values)
                topics.create_topic(self._publisher, self._output, topic, settings)
            case c.DeleteTopic(topic):
                topics.delete_topic(self._publisher, self._output, topic)
            case _:
                raise AssertionError(f"the grammar lets no {command} into this shell")

    def close(self, *, clean: bool) -> None:
        """End the session; every send has its answer already, however it ends."""
        self._publisher.close()

    def _connect(self, name: str | None) -> "Publisher":
        from mbctl import Publisher

        return Publisher(self._options.server, name, timeout=self._options.timeout)

    def _send(self, command: c.Send) -> None:
        payload = command.message
        if payload is None:
            assert command.file is not None, "the grammar gives one of both"
            payload = _content(command.file, self._publisher.limits.message_bytes)
        sending.send(
            self._publisher,
            self._output,
            command.topic,
            payload,
            key=command.key,
            headers=command.headers,
        )


def _content(path: str, limit: int) -> bytes:
    """The content of a file, if it can be a message: no more is read of a larger one."""
    try:
        with Path(path).expanduser().open("rb") as file:
            content = file.read(limit + 1)
            # Of what is no file the system tells no size.
            size = max(len(content), os.fstat(file.fileno()).st_size)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidArgument(reason=f"{path}: {reason.lower()}") from None
    if len(content) > limit:
        raise MessageTooLarge(what="file", size=size, limit=limit)
    return content
