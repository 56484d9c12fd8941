"""Find where the map of a peer differs from one's own, without sending either (spec/replication.md §2).

    question ──▶ own map and peer look at the same prefixes ──compare──▶ deeper prefixes, or buckets

The asker goes down where fingerprints differ, and stops where few items of its own are left:
these are then asked for together (`buckets`). So a walk ends, whatever the peer says: it is
no longer than the asker's own map is deep and wide. The answering side keeps nothing between questions.
"""

from __future__ import annotations

from collections.abc import Sequence

from p2phub.core.errors import InvalidData
from p2phub.core.fingerprints import DIGITS, SHORT_SIZE, Branch, short

PREFIXES_MAX = 256  # prefixes in one question; spec/replication.md §2
BUCKETS_MAX = 128  # buckets asked for at once; spec/replication.md §2
HAVE_MAX = 64  # items that the asker names of one bucket; spec/replication.md §2

Children = Sequence[Branch] | None  # the 16 of a prefix, or None: it is a bucket


def told(children: Children, salt: bytes) -> bytes:
    """Return how a prefix is answered: nothing if it is a bucket, else the short fingerprints of its children."""
    return b"".join(short(child.fingerprint, salt) for child in children) if children else b""


class Walk:
    """One comparison of two maps, as far as it went."""

    def __init__(self, salt: bytes) -> None:
        """salt: 32 bytes by chance, which go with every question of this walk."""
        self.salt = salt
        # The next to ask about stand last: going deep first keeps both lists short.
        self._prefixes = [""]
        self._buckets: list[str] = []

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to ask."""
        return not self._prefixes and not self._buckets

    def question(self) -> tuple[str, ...]:
        """Return prefixes to look at next, sorted; none if buckets should be asked for first."""
        if len(self._buckets) >= BUCKETS_MAX:
            return ()
        return tuple(sorted(self._prefixes[-PREFIXES_MAX:]))

    def compare(self, ours: Sequence[Children], theirs: Sequence[bytes]) -> None:
        """Take in what both sides have under the prefixes of the last `question`.

        theirs: for each prefix what `told` makes there. Raises InvalidData if it cannot be that.
        """
        prefixes = self.question()
        if len(theirs) != len(prefixes):
            raise InvalidData(f"{len(theirs)} prefixes were answered instead of {len(prefixes)}")
        if any(len(fingerprints) not in (0, 16 * SHORT_SIZE) for fingerprints in theirs):
            raise InvalidData("a prefix has 16 children or none")
        del self._prefixes[-len(prefixes) :]
        for prefix, mine, fingerprints in zip(prefixes, ours, theirs, strict=True):
            if mine is None or not fingerprints:
                self._buckets.append(prefix)
                continue
            for digit, child in enumerate(mine):
                begin = digit * SHORT_SIZE
                if short(child.fingerprint, self.salt) != fingerprints[begin : begin + SHORT_SIZE]:
                    # Asking what a small one differs in is cheaper than looking further.
                    (self._buckets if child.is_bucket else self._prefixes).append(prefix + DIGITS[digit])

    def buckets(self) -> tuple[str, ...]:
        """Return the next prefixes whose items differ, sorted, and forget them."""
        taken = self._buckets[-BUCKETS_MAX:]
        del self._buckets[-BUCKETS_MAX:]
        return tuple(sorted(taken))
