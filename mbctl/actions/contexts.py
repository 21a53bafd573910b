"""Contexts: servers that the user has given names, in one small file.

    $XDG_CONFIG_HOME/mbctl/contexts.toml, or ~/.config/mbctl/contexts.toml

The file may be edited by hand. It is replaced as a whole when a command changes it, and read
only when somebody asks for a context or one is in use.
"""

import os
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from mbctl.errors import InvalidArgument
from mbctl.model import check_name

Confirm = Literal["ask", "always"]
Paint = Literal["red", "green", "yellow", "blue", "magenta", "cyan"]
CONFIRMS: tuple[Confirm, ...] = get_args(Confirm)
PAINTS: tuple[Paint, ...] = get_args(Paint)


class Context(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One server under a name.

    With ``confirm`` always, what destroys something is asked for twice: the user types the
    name of what goes, and a script has to say ``--yes``.
    """

    server: str
    color: Paint | None = None
    confirm: Confirm = "ask"


class Contexts(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """All of the file: the contexts, which one is in use, and which one was before."""

    current: str | None = None
    previous: str | None = None
    contexts: dict[str, Context] = {}

    def get(self, name: str) -> Context:
        """The context of that name.

        Raises:
            InvalidArgument: there is none.
        """
        context = self.contexts.get(name)
        if context is None:
            raise _unknown(name, list(self.contexts))
        return context

    def use(self, name: str | None) -> None:
        """Let ``name`` be the one in use, or none; the one before that for ``-``."""
        if name == "-":
            if self.previous is None:
                raise InvalidArgument(reason="no context was in use before")
            name = self.previous
        if name is not None:
            self.get(name)
        if name != self.current:
            self.previous, self.current = self.current, name

    def remove(self, name: str) -> None:
        """Forget a context."""
        self.get(name)
        del self.contexts[name]
        self.current = None if self.current == name else self.current
        self.previous = None if self.previous == name else self.previous


def path() -> Path:
    """Where the contexts are kept."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    # The XDG specification says to ignore a path that is not absolute.
    directory = Path(base) if os.path.isabs(base) else Path.home() / ".config"
    return directory / "mbctl" / "contexts.toml"


def load() -> Contexts:
    """What the file says; nothing if there is none.

    Raises:
        InvalidArgument: it is not what a file of contexts is.
        OSError: it cannot be read.
    """
    try:
        written = path().read_text(encoding="utf-8")
    except FileNotFoundError:
        return Contexts()
    except UnicodeDecodeError:
        raise _wrong("it is not UTF-8") from None
    # Slow to import, and most people have no contexts.
    import tomllib

    try:
        contexts = msgspec.convert(tomllib.loads(written), Contexts)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise _wrong(str(error)) from None
    for name in contexts.contexts:
        check_name(name)
    return contexts


def save(contexts: Contexts) -> None:
    """Replace the file, so that it is the old or the new one whatever happens."""
    target = path()
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shorter = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        shorter.write_text(_as_toml(contexts), encoding="utf-8")
        shorter.replace(target)
    finally:
        shorter.unlink(missing_ok=True)


def _as_toml(contexts: Contexts) -> str:
    lines = [
        f"{name} = {_quoted(value)}"
        for name, value in (("current", contexts.current), ("previous", contexts.previous))
        if value is not None
    ]
    for name, context in contexts.contexts.items():
        lines += ["", f"[contexts.{_quoted(name)}]"]
        values: dict[str, Any] = msgspec.structs.asdict(context)
        lines += [f"{key} = {_quoted(value)}" for key, value in values.items() if value is not None]
    return "".join(f"{line}\n" for line in lines).lstrip("\n")


def _quoted(value: str) -> str:
    """A string as TOML writes it, which for what is in here is as JSON does."""
    return msgspec.json.encode(value).decode()


def _unknown(name: str, names: list[str]) -> InvalidArgument:
    from difflib import get_close_matches

    near = get_close_matches(name, names, 1)
    advised = f"did you mean {near[0]}?" if near else "see them with: mbctl context list"
    return InvalidArgument(reason=f"there is no context {name!r}; {advised}")


def _wrong(reason: str) -> InvalidArgument:
    return InvalidArgument(reason=f"{path()} is not a file of contexts: {reason}")
