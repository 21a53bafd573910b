"""Reads a system call trace of a server and judges the order of its calls.

An acknowledgement may leave on a socket only after its batch was written to a file and a
sync of that file, begun after that write, has returned 0. Messages carry marks, ``<n>``
with a number that is used once, by which a batch is known on its way.

strace writes a line when a call begins, if another thread's call comes in between, and one
when it ends; so the numbers of the lines are the order in which things happened.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

import msgspec

from mbctl.wire.frames import FrameReader

# Options of strace, without the file to write to. -D: the server is our own child.
STRACE = (
    *("-D", "-f", "-ttt", "-y", "-xx", "-s", "2000000", "--seccomp-bpf", "-e", "signal=none"),
    *("-e", "trace=pwrite64,pwritev,pwritev2,fdatasync,fsync,sendto,sendmsg,write,writev,read"),
)
MARK = re.compile(rb"<\d+>")
LAST_LINE = "+++ exited with"

_LINE = re.compile(r"(\d+) +\d+\.\d+ (?:<\.\.\. \w+ resumed>(.*)|(\w+)\((.*))")
_UNFINISHED = " <unfinished ...>"
_DESCRIPTOR = re.compile(r"\d+<((?:\\x[0-9a-f]{2})*)>")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_RESULT = re.compile(r"\) += (-?\d+)")
_FRAME_MAX = 1 << 30


class Call(msgspec.Struct):
    """One system call on a file or socket."""

    name: str
    target: str
    """The path of the file, or ``socket:[...]``."""
    content: bytes
    result: int
    begin: int
    """The number of the line where it began."""
    end: int


def read_trace(lines: Iterable[str]) -> Iterator[Call]:
    """The calls of a trace, in the order of their ends."""
    unfinished: dict[str, tuple[int, str, str]] = {}
    for number, line in enumerate(lines):
        found = _LINE.match(line)
        if found is None:
            continue
        thread, rest, name, text = found.groups()
        if name is None:
            begin, name, head = unfinished.pop(thread)
            text = head + rest
        elif text.rstrip().endswith(_UNFINISHED):
            unfinished[thread] = number, name, text.rstrip().removesuffix(_UNFINISHED)
            continue
        else:
            begin = number
        call = _call(name, text, begin, number)
        if call is not None:
            yield call


def _call(name: str, text: str, begin: int, end: int) -> Call | None:
    target = _DESCRIPTOR.match(text)
    result = _RESULT.search(text)
    if target is None or result is None:
        return None
    content = b"".join(map(_bytes, _STRING.findall(text, target.end())))
    size = int(result[1])
    return Call(name, _bytes(target[1]).decode(), content[: max(size, 0)], size, begin, end)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


class Judge:
    """Looks at calls in the order of their ends, and at every acknowledgement among them."""

    def __init__(self) -> None:
        self.acknowledged = 0
        """Sends whose acknowledgement was seen."""
        self.violations: list[str] = []
        self._incoming: dict[str, FrameReader] = defaultdict(lambda: FrameReader(_FRAME_MAX))
        self._outgoing: dict[str, FrameReader] = defaultdict(lambda: FrameReader(_FRAME_MAX))
        self._requests: dict[tuple[str, int], list[bytes]] = {}
        self._written: dict[bytes, Call] = {}
        self._syncs: dict[str, list[Call]] = defaultdict(list)

    def look(self, calls: Iterable[Call]) -> "Judge":
        """Look at all of ``calls``; this judge."""
        for call in calls:
            if call.target.startswith("socket:"):
                self._look_at_socket(call)
            elif call.name in ("fdatasync", "fsync"):
                if call.result == 0:
                    self._syncs[call.target].append(call)
            elif call.target.endswith(".segment"):
                for mark in MARK.findall(call.content):
                    self._written[mark] = call
        return self

    def _look_at_socket(self, call: Call) -> None:
        is_read = call.name == "read"
        reader = (self._incoming if is_read else self._outgoing)[call.target]
        reader.feed(call.content)
        while (frame := reader.next_frame()) is not None:
            verb, id_, *_ = msgspec.msgpack.decode(frame)
            if is_read and verb == "send":
                self._requests[call.target, id_] = MARK.findall(frame)
            elif not is_read and verb == "sent":
                self.acknowledged += 1
                for mark in self._requests.pop((call.target, id_)):
                    self._check(mark, call)

    def _check(self, mark: bytes, acknowledgement: Call) -> None:
        name = mark.decode()
        written = self._written.get(mark)
        if written is None or written.end > acknowledgement.begin:
            self.violations.append(f"{name} was acknowledged before it was written")
        elif not any(
            written.end < sync.begin and sync.end < acknowledgement.begin
            for sync in reversed(self._syncs[written.target])
        ):
            self.violations.append(f"{name} was acknowledged before it was synced")
