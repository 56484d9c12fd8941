"""Ask a domain who publishes under it (spec/names.md §6).

    domain ──addresses, all public──▶ TLS, certificate of the domain ──GET──▶ at most 64 KiB ──▶ bytes

Whoever types a name lets a stranger's domain be asked: so nothing of the network behind this
machine is, and nothing that the answer does can take long, grow large or lead elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from p2phub.core.errors import DomainError
from p2phub.core.origins import parse_url
from p2phub.core.wellknown import FILE_SIZE_MAX, PATH

from .connection import one_line
from .origin import phrase
from .web import Hop, LedAstray, Web, header

TIMEOUT_S = 10.0  # for all of it; spec/names.md §6


class WellKnownRequest:
    """One question to one domain. `abort` may be called from any thread."""

    def __init__(self, domain: str, places: Mapping[str, tuple[str, int]]) -> None:
        """places: where the owner of this node says that domains answer (spec/cli.md §3)."""
        self._domain = domain
        self._web = Web(places)
        self._is_answered = False

    def fetch(self) -> bytes:
        """Return the file that the domain has, unchecked. Raises DomainError."""
        self._web.deadline = time.monotonic() + TIMEOUT_S
        try:
            return self._fetch()
        except LedAstray as exc:
            raise DomainError(
                f"{self._domain} {exc}, and is not asked there",
                hint="if its web server is in your own network: P2PHUB_DOMAINS_AT says where domains may be asked",
            ) from exc
        except Exception as exc:
            reason = self._web.reason(exc, self._domain, is_answered=self._is_answered)
            if reason is None:
                raise
            raise DomainError(reason) from exc
        finally:
            self._web.close()

    def abort(self) -> None:
        """Make a running request end now."""
        self._web.abort()

    def _fetch(self) -> bytes:
        response = self._web.get_here(Hop.begin(parse_url(f"https://{self._domain}{PATH}"), is_given=False))
        self._is_answered = True
        try:
            if 300 <= response.status < 400:
                raise DomainError(
                    f"{self._domain} redirects from {PATH} to elsewhere, which is not followed",
                    hint=f"its owner has to let https://{self._domain}{PATH} be answered by itself",
                )
            if response.status in (404, 410):
                raise DomainError(
                    f"{self._domain} has no {PATH}, so it names no publisher ({phrase(response.status)})",
                    hint=f"its owner makes one with `p2phub id domain {self._domain}`",
                )
            if response.status != 200:
                raise DomainError(f"{self._domain} answered {phrase(response.status)} instead of {PATH}")
            coding = header(response, "content-encoding").lower()
            if coding not in ("", "identity"):
                said = one_line(coding)[:20]
                raise DomainError(f"{self._domain} sends {PATH} compressed ({said}), though it was asked not to")
            length = header(response, "content-length")
            if length.isdigit() and int(length[:20]) > FILE_SIZE_MAX:
                raise self._too_large()
            data = bytearray()
            for piece in response.iter_stream():
                data += piece
                if len(data) > FILE_SIZE_MAX:
                    raise self._too_large()
            return bytes(data)
        finally:
            response.close()

    def _too_large(self) -> DomainError:
        return DomainError(f"{self._domain} sends more than {FILE_SIZE_MAX} bytes for {PATH}")
