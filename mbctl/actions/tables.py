"""Tables drawn by rich. Imported only when one is really drawn: rich is slow to import."""

from collections.abc import Sequence
from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mbctl.actions.output import Column

_WIDTH_UNBOUNDED = 100_000


def draw(
    columns: Sequence[Column], cells: Sequence[Sequence[str]], *, width: int | None, color: bool
) -> str:
    """A table of escaped cells as text. Without a ``width`` nothing is folded."""
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
        pad_edge=False,
        header_style="bold",
    )
    for column in columns:
        is_text = column.kind == "text"
        table.add_column(
            Text(column.title),
            justify="left" if is_text or column.kind in ("time", "ago") else "right",
            # Text is folded, never cut: what people see must be all there is.
            overflow="fold",
            no_wrap=not is_text,
        )
    for row in cells:
        table.add_row(*[Text(value) for value in row])
    console = Console(
        file=StringIO(),
        width=width or _WIDTH_UNBOUNDED,
        force_terminal=color,
        color_system="standard" if color else None,
        no_color=not color,
        highlight=False,
        emoji=False,
        markup=False,
        legacy_windows=False,
    )
    console.print(table)
    written = console.file.getvalue()  # type: ignore[attr-defined]
    return "".join(f"{line.rstrip()}\n" for line in written.splitlines())
