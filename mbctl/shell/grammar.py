"""From a line to a command, or to an error that says what is wrong and where.

    line    = [ blanks verb { blanks ( option | operand ) } ] [ "#" comment ]
    option  = flag [ "=" value | blanks value ]
    word    = characters without blanks; '...' and "..." keep blanks together

A verb with a tail (send) takes everything after its first operand and exactly one
space as it is, to the end of the line: no quotes, no comment, nothing is cut off.

Where a topic stands, `.` is the topic in use: no name begins with a dot.

Nothing here reads, writes or knows a server. `pieces` never raises and serves what is
half typed as well; `parse` raises InvalidCommand and nothing else.
"""

from collections.abc import Iterator
from itertools import zip_longest
from typing import Literal

import msgspec

from mbctl.errors import InvalidArgument, MbctlError
from mbctl.shell.commands import Command, Kind
from mbctl.shell.values import shown
from mbctl.shell.verb import Operand, Option, Verb, normalize
from mbctl.shell.verbs import find_verb, verbs_of

# A carriage return separates words too, so that scripts with CRLF work; in a message it stays.
_BLANKS = " \t\r"
_QUOTES = "'\""

IN_USE = "."
"""What stands for the topic in use."""


class InvalidCommand(InvalidArgument):
    """A line that is no command. ``column`` counts characters from 1."""

    column: int
    template = "{reason}{place}"
    advice = "{advised}"


class Unfinished(InvalidCommand):
    """A line that would be a command if more were typed at its end."""


def _refuse(
    reason: str, position: int, advised: str = "", *, kind: type[InvalidCommand] = InvalidCommand
) -> InvalidCommand:
    place = f" (column {position + 1})" if position else ""
    return kind(reason=reason, place=place, column=position + 1, advised=advised)


class Token(msgspec.Struct, frozen=True):
    """One word of a line: its text without quotes, and where it stands."""

    text: str
    start: int
    end: int
    quoted: bool = False
    """It begins with a quote, so it is no option and no comment."""
    open: bool = False
    """A quote in it is not closed."""


class Piece(msgspec.Struct, frozen=True):
    """One token and what it is in its place."""

    role: Literal["switch", "option", "value", "operand", "message", "unknown"]
    token: Token
    option: Option | None = None
    """Of a switch, an option or a value."""


def scan(line: str, position: int) -> Token | None:
    """The next word of ``line`` from ``position`` on; None if only blanks are left."""
    while position < len(line) and line[position] in _BLANKS:
        position += 1
    if position == len(line):
        return None
    start = position
    text: list[str] = []
    quote = ""
    while position < len(line) and (quote or line[position] not in _BLANKS):
        character = line[position]
        position += 1
        if character == quote:
            quote = ""
        elif not quote and character in _QUOTES:
            quote = character
        else:
            text.append(character)
    return Token("".join(text), start, position, line[start] in _QUOTES, bool(quote))


def verb_token(line: str) -> Token | None:
    """The first word of ``line``, in which quotes mean nothing; None without one."""
    stripped = line.lstrip(_BLANKS)
    if not stripped or stripped[0] == "#":
        return None
    start = len(line) - len(stripped)
    end = start
    while end < len(line) and line[end] not in _BLANKS:
        end += 1
    return Token(line[start:end], start, end)


def pieces(verb: Verb, line: str, position: int) -> Iterator[Piece]:
    """What follows the verb in ``line``, piece by piece, as far as it can be told."""
    has_tail = verb.tail is not None
    options_end = False
    while (token := scan(line, position)) is not None:
        position = token.end
        if not (token.quoted or has_tail) and token.text.startswith("#"):
            return
        if options_end or token.quoted or not _looks_like_option(token.text):
            yield Piece("operand", token)
            if has_tail:
                yield from _message(line, token.end)
                return
        elif token.text == "--":
            options_end = True
        else:
            for piece in _option_pieces(verb, line, token):
                yield piece
                position = piece.token.end
                has_tail = has_tail and not (piece.option and piece.option.is_message)


def _looks_like_option(text: str) -> bool:
    return len(text) > 1 and text[0] == "-"


def _message(line: str, position: int) -> Iterator[Piece]:
    if line[position : position + 1] == " ":
        text = line[position + 1 :]
        yield Piece("message", Token(text, position + 1, len(line)))


def _option_pieces(verb: Verb, line: str, token: Token) -> Iterator[Piece]:
    flag, attached = _split_option(token)
    option = next((option for option in verb.options if option.flag == flag.text), None)
    if option is None or (option.value is None and attached is not None):
        yield Piece("unknown", token)
        return
    yield Piece("switch" if option.value is None else "option", flag, option)
    value = attached or (scan(line, token.end) if option.value is not None else None)
    if value is not None:
        yield Piece("value", value, option)


def _split_option(token: Token) -> tuple[Token, Token | None]:
    """The flag, and the value if it is attached: --key=K, -n5, -HN=V."""
    text = token.text
    if text.startswith("--"):
        length = text.find("=") if "=" in text else len(text)
        skipped = 1
    else:
        length, skipped = 2, 0
    if length == len(text):
        return token, None
    middle = token.start + length
    flag = Token(text[:length], token.start, middle)
    return flag, Token(text[length + skipped :], middle + skipped, token.end, open=token.open)


def parse(kind: Kind, line: str, in_use: str | None = None) -> Command | None:
    """The command that ``line`` is in the shell ``kind``; None if empty or a comment.

    ``in_use`` is the topic that ``.`` stands for.

    Raises:
        InvalidCommand: it is none.
    """
    word = verb_token(line)
    if word is None:
        return None
    verb = find_verb(word.text)
    if verb is None:
        raise _unknown_verb(kind, word)
    if kind not in verb.kinds:
        raise _verb_of_the_other_shell(verb, word)
    read = list(pieces(verb, line, word.end))
    values: dict[str, object] = {}
    for piece, following in zip_longest(read, read[1:]):
        _take(verb, piece, following, values)
    operands = [_spelt_out(piece, in_use) for piece in read if piece.option is None]
    _take_operands(verb, operands, len(line), values)
    return verb.command(**values)


def _spelt_out(piece: Piece, in_use: str | None) -> Token:
    """The token of an operand; the topic in use for a dot."""
    token = piece.token
    if piece.role != "operand" or token.quoted or token.text != IN_USE:
        return token
    if in_use is None:
        raise _refuse("no topic is in use for the dot", token.start, "say which: use TOPIC")
    return Token(in_use, token.start, token.end)


def _take(verb: Verb, piece: Piece, following: Piece | None, values: dict[str, object]) -> None:
    token, option = piece.token, piece.option
    if token.open:
        raise _refuse("a quote is not closed", token.start, kind=Unfinished)
    if piece.role == "unknown":
        raise _unknown_option(verb, token)
    if option is None:
        return
    if piece.role == "switch":
        values[option.field] = True
    elif piece.role == "value":
        _take_value(verb, option, token, values)
    elif following is None or following.role != "value":
        reason = f"{option.flag} needs a value {option.value}"
        raise _refuse(reason, token.end, _write(verb), kind=Unfinished)


def _take_value(verb: Verb, option: Option, token: Token, values: dict[str, object]) -> None:
    value = _convert(option, token, option.flag)
    rivals = (
        [other for other in verb.options if other.is_message] if option.is_message else [option]
    )
    if option.repeatable:
        _add_header(value, token, values.setdefault(option.field, {}))
    elif any(rival.field in values for rival in rivals):
        flags = " or ".join(rival.flag for rival in rivals)
        raise _refuse(f"give {flags} only once", token.start)
    else:
        values[option.field] = value


def _add_header(header: object, token: Token, headers: object) -> None:
    assert isinstance(headers, dict), "only headers repeat"
    assert isinstance(header, tuple), "a header is a name and a value"
    name, value = header
    if name in headers:
        raise _refuse(f"the header {shown(name)} is given twice", token.start)
    headers[name] = value


def _take_operands(verb: Verb, tokens: list[Token], end: int, values: dict[str, object]) -> None:
    for operand in verb.operands:
        if operand.tail and any(o.is_message and o.field in values for o in verb.options):
            continue
        if operand.repeatable:
            values[operand.field] = tuple(_convert(operand, t, operand.label) for t in tokens)
            tokens = []
        elif tokens:
            values[operand.field] = _convert(operand, tokens[0], operand.label)
            tokens = tokens[1:]
        elif operand.required:
            what = f"{operand.label} after one space" if operand.tail else operand.label
            raise _refuse(f"{verb.name} needs {what}", end, _write(verb), kind=Unfinished)
    if tokens:
        raise _refuse(f"{shown(tokens[0].text)} is too much", tokens[0].start, _write(verb))


def _convert(place: Option | Operand, token: Token, label: str) -> object:
    try:
        return place.convert(token.text)
    except MbctlError as error:
        raise _refuse(f"{label}: {error}", token.start, error.hint) from None
    except ValueError as error:
        raise _refuse(f"{label}: {error}", token.start) from None


def flaw(kind: Kind, line: str, in_use: str | None = None) -> InvalidCommand | None:
    """What is wrong with a line as it is typed; None while more of it may make it right."""
    try:
        parse(kind, line, in_use)
    except InvalidCommand as error:
        if isinstance(error, Unfinished):
            return None
        word = scan(line, error.column - 1)
        # The word at the cursor is still being typed.
        return None if word is None or word.end == len(line) else error
    return None


def _write(verb: Verb) -> str:
    return f"write: {verb.syntax}"


def _unknown_verb(kind: Kind, word: Token) -> InvalidCommand:
    names = {normalize(verb.name): verb.name for verb in verbs_of(kind)}
    near = nearest(normalize(word.text), list(names))
    advised = f"did you mean {names[near]}?" if near else "help lists the verbs"
    return _refuse(f"unknown verb {shown(word.text)}", word.start, advised)


def _verb_of_the_other_shell(verb: Verb, word: Token) -> InvalidCommand:
    other = verb.kinds[0]
    reason = f"{verb.name} is a verb of the {other} shell"
    return _refuse(reason, word.start, f"start that with: mbctl {other}")


def _unknown_option(verb: Verb, token: Token) -> InvalidCommand:
    flag = token.text.partition("=")[0]
    if any(option.flag == flag for option in verb.options):
        return _refuse(f"{flag} takes no value", token.start, _write(verb))
    near = nearest(flag, [option.flag for option in verb.options])
    advised = f"did you mean {near}?" if near else _write(verb)
    return _refuse(f"{verb.name} has no option {shown(flag)}", token.start, advised)


def nearest(word: str, words: list[str]) -> str | None:
    """The one of ``words`` that was probably meant by ``word``."""
    # Imported here because it is slow to import and needed only after a slip.
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, words, 1)), None)
