"""The bottom line of a shell: who is connected to what, and the syntax being typed."""

import msgspec

_GAP = 2


class Toolbar(msgspec.Struct, frozen=True):
    """What the bottom line says. ``reachable`` is None while nobody knows."""

    server: str
    reachable: bool | None
    label: str
    syntax: str
    full_syntax: str = ""
    """The same with more in it, for terminals that are wide enough."""
    facts: str = ""
    """Lag and rate, and what else changes by itself."""

    def line(self, columns: int) -> str:
        """The bottom line, exactly as wide as the terminal.

        Where it is narrow, the syntax counts most as long as there is a connection.
        """
        state = {True: "connected", False: "no connection", None: "connecting"}[self.reachable]
        who = f" {state} {self.server}  {self.label}"
        lefts = [f"{who}  {self.facts}"] if self.facts else []
        lefts += [who, f" {state} {self.server}"]
        if self.reachable:
            lefts.append(f" {self.server}")
        if self.full_syntax and self.reachable:
            for left in lefts[:-1]:
                room = columns - len(left) - len(self.full_syntax) - 1
                if room >= _GAP:
                    return f"{left}{' ' * room}{self.full_syntax} "
        right = f"{self.syntax} " if self.syntax else ""
        for left in lefts:
            room = columns - len(left) - len(right)
            if room >= _GAP:
                return f"{left}{' ' * room}{right}"
        left = lefts[-1]
        room = columns - len(left) - _GAP
        clipped = f"{right[: max(room - 1, 0)]}…" if room > 1 else ""
        return f"{left}  {clipped}"[:columns].ljust(columns)
