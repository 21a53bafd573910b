"""Messages a second over the last few seconds, from two counters."""

from collections import deque

from mbctl.model import NS_PER_S

_WINDOW_NS = 5 * NS_PER_S


class Rates:
    """Samples counters at most once a second; tells their mean rise over the window."""

    def __init__(self, now_ns: int) -> None:
        self._samples: deque[tuple[int, int, int]] = deque([(now_ns, 0, 0)])

    def sample(self, now_ns: int, messages_in: int, messages_out: int) -> None:
        """Note the counters, if the last note is old enough."""
        if now_ns - self._samples[-1][0] >= NS_PER_S:
            self._samples.append((now_ns, messages_in, messages_out))
            self._drop(now_ns)

    def per_second(self, now_ns: int, messages_in: int, messages_out: int) -> tuple[float, float]:
        """The rates up to now, in and out."""
        self._drop(now_ns)
        since_ns, base_in, base_out = self._samples[0]
        # Had anything risen long before the window, there would be a later sample.
        seconds = max(1, min(now_ns - since_ns, _WINDOW_NS)) / NS_PER_S
        return (messages_in - base_in) / seconds, (messages_out - base_out) / seconds

    def _drop(self, now_ns: int) -> None:
        # The newest sample before the window stays: what rose since then rose over that time.
        while len(self._samples) > 1 and self._samples[1][0] <= now_ns - _WINDOW_NS:
            self._samples.popleft()
