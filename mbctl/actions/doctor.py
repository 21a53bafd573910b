"""Is all well between this terminal and a server? Each check says what it saw, and its fix."""

import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from mbctl import __version__
from mbctl.actions import contexts, text
from mbctl.actions.output import Column, Output
from mbctl.actions.samples import skew_s
from mbctl.errors import InvalidArgument, MbctlError
from mbctl.model import NS_PER_S

if TYPE_CHECKING:
    from mbctl import Admin
    from mbctl.model import ServerStatus

State = Literal["ok", "warn", "fail"]

COLUMNS = (
    Column("check", "CHECK"),
    Column("state", "STATE"),
    Column("what", "WHAT"),
    Column("fix", "FIX"),
)
_SIGNS = {"ok": "✓", "warn": "!", "fail": "✗"}
_PLAIN_SIGNS = {"ok": "ok", "warn": "!!", "fail": "XX"}

# Where it is time to say something; all arbitrary.
_PINGS = 5
_SLOW_PING_S = 0.05
_SKEW_MAX_S = 2.0
_FULL_SHARE, _FULL_SHARE_FAILED = 0.8, 0.98
_ABANDONED_NS = 24 * 3600 * NS_PER_S
_FILES_MIN = 1024
_WIDTH_MIN = 80
_NAMED_MAX = 3
_TRIAL_WAIT_S = 5.0


class Finding(msgspec.Struct, frozen=True):
    """What one check found. ``fix`` is empty where all is well."""

    check: str
    state: State
    what: str
    fix: str = ""


def examine(connect: "Callable[[], Admin]", *, trial: bool = False) -> list[Finding]:
    """Make all checks; ``trial`` also sends a message through a topic of its own."""
    findings = list(_here())
    try:
        with connect() as admin:
            findings += _server(admin)
            if trial:
                findings.append(_trial(admin.server, admin.timeout))
    except MbctlError as error:
        findings.append(Finding("server", "fail", str(error), error.hint))
    return findings


def show(output: Output, findings: list[Finding]) -> None:
    """Show the findings, each with its fix."""
    if not output.for_people:
        output.rows(COLUMNS, [msgspec.structs.asdict(finding) for finding in findings])
        return
    encoding = (getattr(output.stdout, "encoding", None) or "").lower().replace("-", "")
    signs = _SIGNS if encoding == "utf8" else _PLAIN_SIGNS
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        sign = signs[finding.state]
        shown = output.bad(sign) if finding.state == "fail" else output.bold(sign)
        output.write_text(f"{shown} {finding.check:{width}}  {text.escape(finding.what)}\n")
        if finding.fix:
            arrow = output.dim("fix:")
            output.write_text(f"  {'':{width}}  {arrow} {text.escape(finding.fix)}\n")
    failed = sum(finding.state == "fail" for finding in findings)
    warned = sum(finding.state == "warn" for finding in findings)
    output.flush()
    verdict = "all is well" if not failed + warned else f"{failed} failed, {warned} to look at"
    output.note(f"{text.counted(len(findings), 'check')}: {verdict}")


# --- on this side ---------------------------------------------------------------------------------


def _here() -> Iterator[Finding]:
    yield _contexts()
    yield _terminal()
    yield _completion()
    yield _history()
    yield _files()


def _contexts() -> Finding:
    try:
        known = contexts.load()
        if known.current is not None:
            known.get(known.current)
    except (InvalidArgument, OSError) as error:
        fix = f"correct or remove {contexts.path()}"
        return Finding("contexts", "fail", str(error), fix)
    used = f", {known.current} is in use" if known.current else ""
    return Finding("contexts", "ok", f"{text.counted(len(known.contexts), 'context')}{used}")


def _terminal() -> Finding:
    encoding = (getattr(sys.stdout, "encoding", None) or "none").lower().replace("-", "")
    if encoding != "utf8":
        what = f"the encoding is {encoding}, so other characters are shown escaped"
        return Finding("terminal", "warn", what, "export LC_ALL=C.UTF-8")
    columns = shutil.get_terminal_size().columns
    if sys.stdout.isatty() and columns < _WIDTH_MIN:
        what = f"it has {columns} columns, so tables are folded"
        return Finding("terminal", "warn", what, f"make it {_WIDTH_MIN} columns wide")
    if not sys.stdout.isatty():
        return Finding("terminal", "ok", "stdout is none, so there is no colour and no prompt")
    kind = os.environ.get("TERM", "")
    if kind in ("", "dumb", "unknown"):
        what = f"TERM is {kind or 'not set'}: no colours, no live pictures, a plain prompt"
        return Finding("terminal", "warn", what, "export TERM=xterm-256color")
    colour = "no colour (NO_COLOR)" if os.environ.get("NO_COLOR") else "colour"
    return Finding("terminal", "ok", f"{kind}, {columns} columns, {colour}")


def _completion() -> Finding:
    shell = Path(os.environ.get("SHELL", "")).name
    places = {
        "bash": ".bash_completions/mbctl.sh",
        "zsh": ".zfunc/_mbctl",
        "fish": ".config/fish/completions/mbctl.fish",
    }
    place = places.get(shell)
    if place is None:
        return Finding("completion", "ok", f"there is none for {shell or 'this shell'}")
    if (Path.home() / place).exists():
        return Finding("completion", "ok", f"installed for {shell}")
    fix = "mbctl --install-completion"
    return Finding("completion", "warn", f"not installed for {shell}", fix)


def _history() -> Finding:
    base = os.environ.get("XDG_STATE_HOME", "")
    state = Path(base) if os.path.isabs(base) else Path.home() / ".local" / "state"
    directory = state / "mbctl"
    there = next(path for path in (directory, *directory.parents) if path.exists())
    if os.access(there, os.W_OK | os.X_OK):
        return Finding("history", "ok", f"kept in {directory}")
    what = f"{there} cannot be written, so the shells forget what is typed"
    return Finding("history", "warn", what, f"chmod u+rwx {there}")


def _files() -> Finding:
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < _FILES_MIN:
        what = f"a process may open {limit} files, so a server started here serves as many clients"
        return Finding("open files", "warn", what, "ulimit -n 65536")
    shown = "any number of" if limit == resource.RLIM_INFINITY else f"{limit:,}"
    return Finding("open files", "ok", f"a process may open {shown} files")


# --- the server -----------------------------------------------------------------------------------


def _server(admin: "Admin") -> Iterator[Finding]:
    status = admin.status()
    yield Finding("server", "ok", f"{admin.server} answers, up {text.duration(status.uptime_s)}")
    yield _version(status)
    yield _ping(admin)
    yield _clock(status)
    yield _durability(status)
    yield _room(status)
    yield _full_topics(admin)
    yield from _subscriptions(admin)


def _version(status: "ServerStatus") -> Finding:
    if status.version == __version__:
        return Finding("version", "ok", f"both sides are {__version__}")
    what = f"the server is {status.version}, this is {__version__}"
    return Finding("version", "warn", what, "install the same version on both sides")


def _ping(admin: "Admin") -> Finding:
    times = sorted(admin.ping() for _ in range(_PINGS))
    median = times[len(times) // 2]
    what = f"a round trip takes {median * 1000:.2f} ms (median of {_PINGS})"
    if median > _SLOW_PING_S:
        return Finding("round trip", "warn", what, "look at the network, and at: mbctl top")
    return Finding("round trip", "ok", what)


def _clock(status: "ServerStatus") -> Finding:
    skew = skew_s(status, time.time_ns())
    if abs(skew) <= _SKEW_MAX_S:
        return Finding("clock", "ok", f"the server's is within {_SKEW_MAX_S:g} s of ours")
    where = "ahead of" if skew > 0 else "behind"
    what = f"the server's is {text.duration(abs(skew))} {where} ours"
    return Finding("clock", "warn", what, "have both machines follow a time server (NTP)")


def _durability(status: "ServerStatus") -> Finding:
    if status.durability == "always":
        return Finding("durability", "ok", "messages are on disk before they are acknowledged")
    if status.note:
        # Of a cluster: what it promises, in its own words.
        if status.durability.startswith("sync always"):
            return Finding("durability", "ok", status.note)
        fix = "set sync_interval: always in the configuration of the nats-servers"
        return Finding("durability", "warn", status.note, fix)
    if status.durability == "memory":
        what, fix = "messages end with the server", "start it with: mbctl server --data DIR"
    else:
        what = "a power cut may lose acknowledged messages"
        fix = "start it with: mbctl server --sync always"
    return Finding("durability", "warn", what, fix)


def _room(status: "ServerStatus") -> Finding:
    if status.max_bytes is None:
        return Finding("room", "ok", f"{text.size(status.bytes)} taken; the cluster has the bound")
    share = status.bytes / status.max_bytes if status.max_bytes else 0.0
    what = f"{text.size(status.bytes)} of {text.size(status.max_bytes)} taken ({share:.0%})"
    if share < _FULL_SHARE:
        return Finding("room", "ok", what)
    state: State = "fail" if share >= _FULL_SHARE_FAILED else "warn"
    return Finding("room", state, what, "see who holds it: mbctl top --sort size")


def _full_topics(admin: "Admin") -> Finding:
    full = [
        info.topic
        for info in admin.topics()
        if info.settings.when_full == "refuse"
        and (
            (info.messages or 0) >= (info.settings.max_messages or sys.maxsize)
            or info.bytes >= (info.settings.max_bytes or sys.maxsize)
        )
    ]
    if not full:
        return Finding("topics", "ok", "none is full")
    return Finding("topics", "fail", f"full: {_named(full)}", f"mbctl topic why {full[0]}")


def _subscriptions(admin: "Admin") -> Iterator[Finding]:
    infos = admin.subscriptions()
    now_ns = time.time_ns()
    abandoned = [
        info
        for info in infos
        if info.durable
        and (info.unread or info.unread_batches)
        and now_ns - max(info.last_pull or 0, info.created) > _ABANDONED_NS
    ]
    parked = [info for info in infos if info.parked]
    if abandoned:
        first = abandoned[0]
        yield Finding(
            "subscriptions",
            "warn",
            f"not read for a day: {_named([f'{i.topic} {i.subscriber}' for i in abandoned])}",
            f"if nobody needs it: mbctl subscription delete {first.topic} {first.subscriber}",
        )
    if parked:
        first = parked[0]
        yield Finding(
            "parked",
            "warn",
            f"messages given up by: {_named([f'{i.topic} {i.subscriber}' for i in parked])}",
            f"mbctl subscription show {first.topic} {first.subscriber}",
        )
    if not abandoned and not parked:
        count = text.counted(len(infos), "subscription")
        yield Finding("subscriptions", "ok", f"{count}, none abandoned, nothing parked")


def _named(names: list[str]) -> str:
    more = len(names) - _NAMED_MAX
    return ", ".join(names[:_NAMED_MAX]) + (f" and {more:,} more" if more > 0 else "")


def _trial(server: str, timeout: float) -> Finding:
    """Send a message through a topic that exists only for that."""
    from mbctl import Publisher, Subscriber

    topic = f"mbctl-doctor-{uuid.uuid4().hex[:12]}"
    with (
        Publisher(server, timeout=timeout) as publisher,
        Subscriber(server, timeout=timeout) as subscriber,
    ):
        try:
            publisher.create_topic(topic)
            subscriber.subscribe(topic, "earliest")
            begin = time.monotonic()
            publisher.send(topic, b"trial")
            came = subscriber.pull(topic, 1, wait=_TRIAL_WAIT_S).payloads
            took = time.monotonic() - begin
        except MbctlError as error:
            return Finding("trial", "fail", str(error), error.hint)
        finally:
            with suppress(MbctlError):
                publisher.delete_topic(topic)
    if came != [b"trial"]:
        what = f"a message did not arrive within {_TRIAL_WAIT_S:g} s"
        return Finding("trial", "fail", what, "look at the server's log")
    return Finding("trial", "ok", f"a message went through in {took * 1000:.1f} ms")
