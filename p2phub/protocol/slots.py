"""Say which answers with content may be sent now (spec/links.md §4).

    ask, leave ──▶ Slots ──▶ start: the turns that begin now

Few answers at once, so that each is sent within its receiver's deadline; and the
background has no turn that the foreground waits for. Who holds the fewest goes first, and
nobody holds all, so that one that asks for much does not keep out those who ask for little.
"""

from __future__ import annotations

from collections import Counter

from msgspec import Struct

from p2phub.core.choices import LinkClass

SLOTS = 8  # answers with content at once; spec/transfer.md §5
SLOTS_EACH = 6  # of one asker; spec/transfer.md §5
BACKGROUND_SLOTS = 4  # of them in the background; spec/links.md §4
RATE_EACH = 256 * 1024  # bytes a second that each answer of a limited class should get; spec/links.md §4


def slots_at(rate: int | None) -> int:
    """Return how many transfers a limit of `rate` bytes a second (None: no limit) should be shared by."""
    return SLOTS if rate is None else max(1, min(rate // RATE_EACH, SLOTS))


class Turn(Struct, eq=False):
    """One answer that waits or is sent."""

    link: LinkClass
    asker: str
    background: bool
    running: bool = False


class Slots:
    """The answers that are sent, and those that wait for it."""

    def __init__(self) -> None:
        self._limits: dict[LinkClass, int] = {}
        self._waiting: list[Turn] = []  # in the order in which they came
        self._running: Counter[tuple[LinkClass, bool]] = Counter()
        self._held: Counter[str] = Counter()  # by asker

    @property
    def count(self) -> int:
        """How many answers are sent now."""
        return self._running.total()

    def running(self, link: LinkClass, *, background: bool) -> int:
        """Return how many answers over `link` are sent now."""
        return self._running[link, background]

    def set_limit(self, link: LinkClass, count: int) -> None:
        """Send at most `count` answers over `link` in the foreground; what is sent already goes on."""
        self._limits[link] = count

    def ask(self, link: LinkClass, asker: str, *, background: bool) -> Turn:
        """Join the queue. asker: by what askers are told apart."""
        turn = Turn(link, asker, background)
        self._waiting.append(turn)
        return turn

    def leave(self, turn: Turn) -> None:
        """Note that an answer is done, or waits no longer."""
        if turn.running:
            self._running[turn.link, turn.background] -= 1
            self._held[turn.asker] -= 1
            self._held += Counter()  # forgets those that hold none
        else:
            self._waiting.remove(turn)

    def start(self) -> list[Turn]:
        """Return the turns that begin now."""
        started = []
        while turn := self._next():
            self._waiting.remove(turn)
            turn.running = True
            self._running[turn.link, turn.background] += 1
            self._held[turn.asker] += 1
            started.append(turn)
        return started

    def _next(self) -> Turn | None:
        """Return the turn that is first among those that have room."""
        waiting = sorted(self._waiting, key=lambda turn: (turn.background, self._held[turn.asker]))
        return next((turn for turn in waiting if self._has_room(turn)), None)

    def _has_room(self, turn: Turn) -> bool:
        limit = self._limits.get(turn.link, SLOTS)
        if self.count >= SLOTS or self._held[turn.asker] >= SLOTS_EACH:
            return False
        if not turn.background:
            return self._running[turn.link, False] < limit
        # The foreground that waits is first: `start` has let begin what could. But nobody waits for who holds too many.
        if any(
            other.link == turn.link and not other.background and self._held[other.asker] < SLOTS_EACH
            for other in self._waiting
        ):
            return False
        in_background = sum(count for (_, background), count in self._running.items() if background)
        beside = 1 if self._running[turn.link, False] else limit
        return in_background < BACKGROUND_SLOTS and self._running[turn.link, True] < beside
