"""Make the pictures of docs/images: real terminals, photographed while they are at work.

    .venv/bin/python scripts/screenshots.py            all of them, about half a minute
    .venv/bin/python scripts/screenshots.py top        one: publisher, subscriber, top, demo

It needs what the tests need (pexpect and pyte). A broker of its own, in memory, is at work
behind them.
"""

import io
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import pexpect
import pyte
from rich.console import Console
from rich.text import Text

from mbctl import Publisher, Subscriber

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
MBCTL = [sys.executable, "-m", "mbctl"]
PATIENCE_S = 20.0

_COLOURS = {"brown": "yellow", "brightblack": "bright_black"}


class Terminal:
    """A command on a terminal of its own, and its screen."""

    def __init__(self, *args: str, server: str, columns: int, lines: int, home: Path) -> None:
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MBCTL_")},
            **{"TERM": "xterm-256color", "MBCTL_SERVER": server, "LC_ALL": "C.UTF-8"},
            **{"XDG_STATE_HOME": str(home / "state"), "XDG_CONFIG_HOME": str(home / "config")},
        }
        self._child = pexpect.spawn(
            MBCTL[0], [*MBCTL[1:], *args], dimensions=(lines, columns), env=environment
        )
        self._child.delaybeforesend = None
        # prompt_toolkit asks where the cursor is, and shows its toolbar once it knows.
        self.screen.write_process_input = self._child.send

    def type(self, keys: str) -> None:
        """Send keys."""
        self._child.send(keys)

    def watch(self, seconds: float) -> None:
        """Draw what comes for so long."""
        self.wait(lambda: False, seconds, must=False)

    def wait(
        self, seen: Callable[[], bool], seconds: float = PATIENCE_S, must: bool = True
    ) -> None:
        """Draw what comes until ``seen``."""
        deadline = time.monotonic() + seconds
        while not seen():
            left = deadline - time.monotonic()
            if left <= 0:
                assert not must, "\n".join(self.screen.display)
                return
            try:
                self._stream.feed(self._child.read_nonblocking(65536, timeout=min(left, 0.1)))
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                return

    def shows(self, text: str) -> Callable[[], bool]:
        """A question that is true once ``text`` is on the screen."""
        return lambda: any(text in line for line in self.screen.display)

    def enter(self, line: str, then: str) -> None:
        """Type a line and Enter, and wait for an answer and the next prompt."""
        self.type(f"{line}\r")
        self.wait(self.shows(then))
        self.watch(0.3)

    def photograph(self, name: str, title: str) -> None:
        """Write what is on the screen to docs/images."""
        lines = [self._line(number) for number in range(self.screen.lines)]
        while lines and not lines[-1].plain.strip():
            lines.pop()
        console = Console(
            width=self.screen.columns, record=True, file=io.StringIO(), force_terminal=True
        )
        console.print(Text("\n").join(lines), soft_wrap=True)
        IMAGES.mkdir(parents=True, exist_ok=True)
        path = IMAGES / f"{name}.svg"
        # The same picture has the same bytes: its names are made from nothing that changes.
        written = console.export_svg(title=title, unique_id=f"mbctl-{name}")
        path.write_text("".join(f"{line.rstrip()}\n" for line in written.splitlines()))
        print(path.relative_to(ROOT))

    def _line(self, number: int) -> Text:
        row = self.screen.buffer[number]
        cells = [row[column] for column in range(self.screen.columns)]
        line = Text()
        for style, alike in groupby(cells, _style):
            written = "".join(cell.data or " " for cell in alike)
            # Blanks at the ends are parts of their own: some programs that show the picture
            # would leave them out and move the rest.
            for part in re.split(r"(^ +| +$)", written):
                line.append(part, style)
        return line

    def close(self) -> None:
        """End it."""
        self._child.close(force=True)


def _style(cell: pyte.screens.Char) -> str:
    def colour(name: str) -> str:
        if name == "default":
            return "default"
        # pyte has the 256 colours as hexadecimal digits.
        return (
            f"#{name}" if len(name) == 6 and set(name) <= set("0123456789abcdef") else _named(name)
        )

    marks = [
        mark
        for mark, is_on in (
            *(("bold", cell.bold), ("italic", cell.italics)),
            *(("underline", cell.underscore), ("reverse", cell.reverse)),
        )
        if is_on
    ]
    return " ".join([*marks, colour(cell.fg), "on", colour(cell.bg)])


def _named(name: str) -> str:
    name = _COLOURS.get(name, name)
    return (
        name.replace("bright", "bright_") if name.startswith("bright") and "_" not in name else name
    )


@contextmanager
def broker() -> Iterator[str]:
    """The address of a broker in memory."""
    command = [*MBCTL, "server", "--memory", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


ORDER = (
    '{"id": 1, "customer": {"name": "Zoë", "city": "Köln"}, "lines": [{"sku": "A-1", "count": 2},'
    ' {"sku": "B-7", "count": 1}], "total": 41.5, "paid": true, "note": "it\'s a gift"}'
)


def publisher(server: str, home: Path) -> None:
    """The publisher shell, with a line half typed and its menu open."""
    with Publisher(server) as other:
        for topic in ("orders", "orders.dead", "old-orders", "clicks"):
            other.create_topic(topic)
    shell = Terminal(
        "publisher", "--name", "till-3", server=server, columns=114, lines=26, home=home
    )
    shell.wait(shell.shows(" connected "))
    shell.enter("createTopic returns --max-messages 100000", "created topic returns")
    shell.enter('send orders {"id": 1, "paid": true, "note": "it\'s a gift"}', "orders #0")
    shell.enter("send --key customer-7 -H type=new orders with a key and a header", "orders #1")
    shell.enter("sned orders oops", "did you mean")
    shell.enter("topics", "returns")
    shell.type("send --key customer-7 or")
    shell.wait(shell.shows("orders.dead  "))
    shell.watch(1.2)
    shell.photograph("publisher", "mbctl publisher")
    shell.close()


def subscriber(server: str, home: Path) -> None:
    """The subscriber shell: messages in full, and others that come while a line is typed."""
    with Publisher(server) as other:
        other.create_topic("orders")
        other.send("orders", ORDER, key="customer-7", headers={"type": "new"})
        other.send("orders", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x01\x00")
        shell = Terminal(
            "subscriber", "--name", "billing", server=server, columns=100, lines=34, home=home
        )
        shell.wait(shell.shows(" connected "))
        shell.enter("subscribe orders --from 0", "from #0")
        shell.enter("pull -n 1 --full", '"paid"')
        shell.enter("pull", "hex:")
        shell.enter("use orders", "orders now")
        shell.enter("follow on", "following orders")
        shell.type("peek . --from earl")
        for number in range(2, 5):
            other.send("orders", f'{{"id": {number}, "total": {40 + number}.5, "paid": true}}')
            shell.watch(0.4)
        shell.watch(1.0)
        shell.photograph("subscriber", "mbctl subscriber --name billing")
        shell.close()


def top(server: str, home: Path) -> None:
    """The live view of a broker with traffic of several kinds."""
    stop = threading.Event()
    traffic = threading.Thread(target=_traffic, args=(server, stop))
    traffic.start()
    view = Terminal("top", server=server, columns=110, lines=20, home=home)
    view.watch(13)
    view.photograph("top", "mbctl top")
    view.close()
    stop.set()
    traffic.join()


def _traffic(server: str, stop: threading.Event) -> None:
    with (
        Publisher(server) as publisher,
        Subscriber(server, "web") as web,
        Subscriber(server, "ledger") as ledger,
        Subscriber(server, "audit") as audit,
    ):
        for topic in ("clicks", "payments", "returns"):
            publisher.create_topic(topic)
        web.subscribe("clicks")
        audit.subscribe("clicks", "earliest")
        ledger.subscribe("payments")
        audit.subscribe("returns", "earliest")
        publisher.send_many("returns", ["{}"] * 1200)
        turn = 0
        while not stop.wait(0.05):
            turn += 1
            publisher.send_many("clicks", ['{"page": "/cart"}'] * (60 + 30 * (turn // 20 % 3)))
            publisher.send_many("payments", ['{"amount": 41.5}'] * (5 + turn // 30 % 4))
            web.pull("clicks", wait=0)
            if turn % 2:
                audit.pull("clicks", 100, wait=0)
            if turn % 5:
                ledger.pull("payments", 7, wait=0)


def demo(server: str, home: Path) -> None:
    """The demo, two thirds through."""
    view = Terminal("demo", "--seconds", "9", server=server, columns=90, lines=24, home=home)
    view.wait(view.shows("3 s to go"))
    # The picture is whole when its lower edge stands again.
    view.wait(lambda: view.shows("3 s to go")() and view.shows("╰─")())
    view.photograph("demo", "mbctl demo")
    view.wait(lambda: False, 12.0, must=False)
    view.close()


PICTURES = {"publisher": publisher, "subscriber": subscriber, "top": top, "demo": demo}


def main() -> None:
    """Make the pictures that are asked for, or all."""
    for name in sys.argv[1:] or PICTURES:
        with broker() as server, tempfile.TemporaryDirectory() as home:
            PICTURES[name](server, Path(home))


if __name__ == "__main__":
    main()
