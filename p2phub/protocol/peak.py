"""Remember the most that passed in a second of late (spec/links.md §4)."""

from __future__ import annotations

WINDOW_S = 2.0  # seconds over which a rate is measured
MEMORY_S = 300.0  # seconds; a peak is remembered for once to twice as long


class Peak:
    """The highest rate of late. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._window_start = 0.0
        self._window_size = 0  # bytes
        self._span_start = 0.0
        self._this_span = 0.0  # bytes a second: the highest since `_span_start`
        self._last_span = 0.0  # the same, in the span before

    def note(self, size: int, now: float) -> None:
        """Note that `size` bytes passed."""
        self._end_window(now)
        self._window_size += size

    def rate(self, now: float) -> float:
        """Return the highest rate in bytes a second."""
        self._end_window(now)
        return max(self._this_span, self._last_span)

    def _end_window(self, now: float) -> None:
        elapsed_s = now - self._window_start
        if elapsed_s < WINDOW_S:
            return
        if now - self._span_start > MEMORY_S:
            is_recent = now - self._span_start < 2 * MEMORY_S
            self._last_span, self._this_span = self._this_span if is_recent else 0.0, 0.0
            self._span_start = now
        self._this_span = max(self._this_span, self._window_size / elapsed_s)
        self._window_start, self._window_size = now, 0
