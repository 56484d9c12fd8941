"""Whom the doors of this machine answer, before it matters what is asked (spec/local-api.md §1).

A page that a browser was tricked into loading from here has a foreign Host (DNS rebinding),
and one from elsewhere an Origin. Programs have neither, so pages are told apart by that
alone, on every path: what only reads tells secrets too.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Collection, Mapping
from urllib.parse import parse_qsl, unquote

from starlette.requests import Request

# A port may have been forwarded; a name that a stranger's DNS gives out is never one of these.
_LOOPBACK = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?")
_SECRET_FIELDS = {"token", "access_token", "hf_token", "api_key", "authorization"}  # spec/local-api.md §1


class Barred(Exception):
    """The door does not answer this request. The text says why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Guard:
    """Watches the local door: for programs of this machine."""

    def __init__(self, token: str, hosts: Collection[str]) -> None:
        """token: the node's. hosts: values of `Host` that are ours besides loopback."""
        self._token = token
        self._hosts = hosts

    def check(self, request: Request) -> None:
        """Raise Barred for what a web page had a browser send, and for a secret in a URL."""
        host = request.headers.get("host", "")
        if host not in self._hosts and not _LOOPBACK.fullmatch(host):
            raise Barred(403, "this door answers programs on this machine only, by its own name")
        site = request.headers.get("sec-fetch-site", "none")
        if "origin" in request.headers or site not in ("none", "same-origin"):
            raise Barred(403, "this door does not answer pages of other sites")
        self._check_url(request)

    def is_owner(self, headers: Mapping[str, str]) -> bool:
        """Say whether a request carries the node's token."""
        given = headers.get("authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(given.encode(), self._token.encode())

    def _check_url(self, request: Request) -> None:
        # Whoever uses it so is told at once: URLs stand in logs, histories and the list of processes.
        query = request.scope["query_string"].decode("latin-1")
        names = {name.lower() for name, _ in parse_qsl(query, keep_blank_values=True)}
        target = unquote(f"{request.scope['raw_path'].decode('latin-1')}?{query}")
        if names & _SECRET_FIELDS or self._token in target:
            raise Barred(400, "a token does not belong into a URL: send it as `Authorization: Bearer TOKEN`")


class PublicGuard:
    """Watches the public door: for everybody, who may only read what everybody may have."""

    def __init__(self, hosts: Collection[str]) -> None:
        """hosts: names or addresses by which the door is called, without port, in lower case."""
        self._hosts = hosts

    def check(self, request: Request) -> None:
        """Raise Barred for a request to another host: it went astray, or somebody plays with names."""
        host = re.sub(r":[0-9]{1,5}\Z", "", request.headers.get("host", "").lower())
        if host not in self._hosts:
            raise Barred(403, "this door does not answer by that name: `p2phub node --public-host NAME` lets it")
