"""The verbs from a script: -c, -f or piped stdin. Results only, and a stop at an error.

A script is bytes. LF alone ends a line, and bytes that are not UTF-8 pass through, so
that a message arrives as it stands there.
"""

import os
import sys
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import BinaryIO, NamedTuple

from mbctl.actions import exit_codes
from mbctl.actions.output import Output
from mbctl.errors import ConnectionFatal, MbctlError, MessageTooLarge
from mbctl.model import LIMITS
from mbctl.shell import ShellOptions
from mbctl.shell.commands import Kind
from mbctl.shell.session import Session

LINE_BYTES_MAX = LIMITS.frame_bytes
"""No longer line could be sent; a script without line ends must not fill the memory."""


class Line(NamedTuple):
    """One line of a script without its end, and the place that an error names.

    Of a line above ``LINE_BYTES_MAX`` the content is cut; ``size`` is what it was.
    """

    place: str
    content: bytes
    size: int


def run_batch(kind: Kind, options: ShellOptions, output: Output) -> int:
    """Run the script that ``options`` name; return 0, or 7 if a command failed.

    Raises:
        MbctlError: there is no server, or it refused the registration.
        OSError: the script cannot be read.
    """
    with ExitStack() as files:
        lines = _script(options, files)
        session = Session(kind, options, output)
        finished = False
        try:
            session.refuses_to_destroy = options.must_confirm and not options.yes
            finished, failed = _run(session, lines, output, keep_going=options.keep_going)
        finally:
            session.close(clean=finished)
    return exit_codes.BATCH_FAILED if failed else exit_codes.OK


def _run(
    session: Session, lines: Iterator[Line], output: Output, *, keep_going: bool
) -> tuple[bool, bool]:
    """Run the lines; return whether the script came to its end, and whether a line failed."""
    failed = False
    for line in lines:
        try:
            if not _run_line(session, line):
                break
        except MbctlError as error:
            output.error(error, place=line.place, hint=session.hint(error))
            failed = True
            # Without a server no later line can succeed, and each would wait for it.
            if not keep_going or isinstance(error, ConnectionFatal):
                return False, failed
    return True, failed


def _run_line(session: Session, line: Line) -> bool:
    if line.size > LINE_BYTES_MAX:
        raise MessageTooLarge(what="line", size=line.size, limit=LINE_BYTES_MAX)
    command = session.parse(line.content.decode("utf-8", "surrogateescape"))
    return command is None or session.execute(command)


def _script(options: ShellOptions, files: ExitStack) -> Iterator[Line]:
    """The lines to run; a file that cannot be opened is known at once."""
    if options.commands:
        return _command_lines(options.commands)
    if options.file is not None and options.file != "-":
        return read_lines(options.file, files.enter_context(open(options.file, "rb")))
    # A process without stdin has an empty script.
    return read_lines("<stdin>", sys.stdin.buffer) if sys.stdin else iter(())


def _command_lines(commands: Sequence[str]) -> Iterator[Line]:
    lines = b"\n".join(map(os.fsencode, commands)).split(b"\n")
    for number, content in enumerate(lines, start=1):
        yield Line(f"-c:{number}", content, len(content))


def read_lines(name: str, stream: BinaryIO) -> Iterator[Line]:
    """The lines of ``stream`` as they come in; only LF ends one."""
    number = 0
    while content := stream.readline(LINE_BYTES_MAX + 1):
        number += 1
        ended = content.endswith(b"\n")
        if number == 1:
            # A mark that some editors begin a file with.
            content = content.removeprefix(BOM_UTF8)
        content = content.removesuffix(b"\n")
        rest = 0 if ended or len(content) <= LINE_BYTES_MAX else _skip_line(stream)
        yield Line(f"{name}:{number}", content, len(content) + rest)


def _skip_line(stream: BinaryIO) -> int:
    """Read on to the end of the line; return how many bytes of it that were."""
    skipped = 0
    while part := stream.readline(LINE_BYTES_MAX):
        skipped += len(part.removesuffix(b"\n"))
        if part.endswith(b"\n"):
            break
    return skipped
