"""Sign the requests to one peer, once it was told who we are (spec/authority.md §1, §3)."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable

from p2phub.core.ages import describe_gap
from p2phub.core.httpsig import NONCE_SIZE, SKEW_MAX_S, Ask, sign_ask
from p2phub.core.ids import NamespaceId, NodeId
from p2phub.core.signing import SigningKey
from p2phub.protocol.messages import SESSION_FIELD, SessionQuery

from .httpdate import parse_date

log = logging.getLogger(__name__)

LIFETIME_S = 30  # of a signature
TIME_DIGITS_MAX = 16  # of a time that a peer names


class Signer:
    """What one peer knows of us. Its `fields` may be asked from any thread."""

    def __init__(self, key: SigningKey, audience: NodeId, clock: Callable[[], float]) -> None:
        """clock: says the time, in seconds since 1970."""
        self._key = key
        self._audience = audience
        self._clock = clock
        self.told: SessionQuery | None = None  # what we said of ourselves; None: nothing, and requests are not signed
        self.session: bytes | None = None  # by which the peer remembers it
        self.until = 0.0  # seconds since 1970: when it is to be told again
        self.namespaces: frozenset[NamespaceId] = frozenset()  # for whom we act in its eyes
        self._after = 0  # seconds since 1970: what was signed then or before, the peer refuses
        # By how many seconds the peer's clock is ahead of ours, as its last answer said; None: none did.
        self.clock_ahead_s: float | None = None

    def sign_after(self, said: bytes) -> bool:
        """Date signatures later than the peer `said` from now on; False if nothing that counts was dated so early.

        A peer that was started just now refuses what came before, by its own clock. Ours may have gone on since.
        """
        after = int(said) if len(said) <= TIME_DIGITS_MAX and said.isdigit() else 0
        # Nobody can make us sign for a time that is far ahead.
        if not self._clock() - LIFETIME_S <= after < self._clock() + SKEW_MAX_S:
            return False
        self._after = max(self._after, after)
        return True

    def time(self) -> float:
        """Return the seconds since 1970 by our clock."""
        return self._clock()

    def see_clock(self, date: bytes, asked: float) -> None:
        """Compare clocks: the peer answered at `date`, in the form of HTTP, what it was asked at `asked` by ours."""
        try:
            said = parse_date(date)
        except ValueError:
            return
        now = self._clock()
        # Between question and answer any time is right, and a date names whole seconds.
        ahead = said - now if said > now else said + 1 - asked if said + 1 < asked else 0.0
        was_apart, self.clock_ahead_s = self.is_apart, ahead
        if self.is_apart and not was_apart:
            log.warning("%s: one of the two is wrong, and what is signed by one, the other refuses", self.difference)
        elif was_apart and not self.is_apart:
            log.warning("the clock of node %s… agrees with this machine's again", str(self._audience)[:12])

    @property
    def is_apart(self) -> bool:
        """Whether the peer's clock and ours differ by more than they may."""
        return self.clock_ahead_s is not None and abs(self.clock_ahead_s) > SKEW_MAX_S

    @property
    def difference(self) -> str:
        """By how much the clocks differ, as people say it; empty if that is nothing to speak of."""
        if self.clock_ahead_s is None or not self.is_apart:
            return ""
        how = "ahead of" if self.clock_ahead_s > 0 else "behind"
        gap = describe_gap(self.clock_ahead_s)
        return f"the clock of node {str(self._audience)[:12]}… is {gap} {how} this machine's"

    def _now(self) -> int:
        return max(int(self._clock()), self._after + 1)

    def fields(self, method: str, target: str, body: bytes) -> dict[str, str]:
        """Return the header fields to send with a request: none, as long as the peer was told nothing."""
        if self.told is None:
            return {}
        session = {SESSION_FIELD: self.session.hex()} if self.session else {}
        return {**self.signature(method, target, body), **session}

    def signature(self, method: str, target: str, body: bytes) -> dict[str, str]:
        """Return the header fields that sign a request."""
        path, _, query = target.partition("?")
        return sign_ask(
            Ask(method, path, query, body),
            self._key,
            self._audience,
            created=self._now(),
            lifetime_s=LIFETIME_S,
            nonce=secrets.token_bytes(NONCE_SIZE),
        )
