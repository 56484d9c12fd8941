"""How a node runs: what the environment and the command line say (spec/cli.md §3)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, field

from p2phub.core.errors import InvalidName
from p2phub.core.labels import check_label
from p2phub.core.origins import GIVEN_MAX, is_hub
from p2phub.store.layout import Layout, named_path

TOKEN_SIZE_MAX = 1024  # characters


class Settings(Struct, frozen=True):
    """How a node runs."""

    layout: Layout
    offline: bool = False  # use no network at all
    plain: bool = False  # no TLS between nodes, for closed clusters
    only_tls: bool = False  # fetch content over HTTPS even where encrypted frames would pass
    advertise: tuple[str, ...] = ()  # HOST:PORT that others should call; empty: what it is bound to
    cluster: str | None = None
    site: str | None = None
    lan: bool = True  # find nodes in the local network, and be found
    upstream: str | None = None  # URL of the hub that is asked for what no peer has; None: no hub is, by itself
    upstream_hub: str | None = None  # HOST[:PORT] of the hub that it stands for; None: it is that hub
    upstream_token: str | None = None  # for it alone
    witness: bool = False  # cosign heads for whoever asks
    key_file: Path | None = None  # the keys to publish with, instead of those of the home
    passphrase_file: Path | None = None  # holds the passphrase of files with keys
    policy_file: Path | None = None  # None: policy.toml of the home, if it is there
    share_restricted: bool = False  # let peers have what the hub does not give to everybody
    domains_at: Mapping[str, tuple[str, int]] = field(default_factory=dict)  # where web servers of domains answer

    def __repr__(self) -> str:
        # Not all of it: a token would come into a log.
        return f"{type(self).__name__}({self.layout!r})"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Return what the variables P2PHUB_… say (spec/cli.md §3). Raises InvalidName."""
        return cls(
            Layout.from_environment(environment),
            offline=_is_on(environment, "P2PHUB_OFFLINE"),
            plain=_is_on(environment, "P2PHUB_PLAIN"),
            only_tls=_is_on(environment, "P2PHUB_ONLY_TLS"),
            cluster=_label(environment, "P2PHUB_CLUSTER"),
            site=_label(environment, "P2PHUB_SITE"),
            lan=_is_on(environment, "P2PHUB_LAN", default=True),
            upstream=_upstream(environment),
            upstream_hub=_hub(environment),
            upstream_token=_token(environment),
            key_file=named_path(environment, "P2PHUB_KEY_FILE"),
            passphrase_file=named_path(environment, "P2PHUB_PASSPHRASE_FILE"),
            policy_file=named_path(environment, "P2PHUB_POLICY"),
            share_restricted=_is_on(environment, "P2PHUB_SHARE_RESTRICTED"),
            domains_at=_domains_at(environment),
        )


def standing_origins(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the URLs of origins that P2PHUB_FROM holds, apart by white space (spec/cli.md §3). Raises InvalidName."""
    urls = tuple(environment.get("P2PHUB_FROM", "").split())
    if len(urls) > GIVEN_MAX:
        raise InvalidName(f"P2PHUB_FROM holds {len(urls)} URLs, the limit is {GIVEN_MAX}")
    return urls


def read_token(path: Path) -> str:
    """Return the token in the file `path`. Raises InvalidName, whose text repeats nothing of it."""
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is no text"
        raise InvalidName(f"cannot read a token from {path}: {why}") from exc
    return _checked_token(text, str(path))


def _domains_at(environment: Mapping[str, str]) -> dict[str, tuple[str, int]]:
    """Return host and port of web servers by domain, as `DOMAIN=HOST:PORT …` says (spec/cli.md §3)."""
    words = environment.get("P2PHUB_DOMAINS_AT", "").split()
    if not words:
        return {}
    # Not before: it loads what checks signatures, and the command line must start fast.
    from p2phub.core.names import is_domain, parse_endpoint

    places = {}
    for word in words:
        domain, _, endpoint = word.partition("=")
        try:
            places[domain] = parse_endpoint(endpoint)
        except InvalidName as exc:
            raise InvalidName(f"P2PHUB_DOMAINS_AT: '{word}' is no DOMAIN=HOST:PORT") from exc
        if not is_domain(domain):
            raise InvalidName(f"P2PHUB_DOMAINS_AT: '{domain}' is no domain")
    return places


def _upstream(environment: Mapping[str, str]) -> str | None:
    url = environment.get("P2PHUB_UPSTREAM") or None
    if url is not None:
        from p2phub.core.upstream import parse_upstream  # few have one

        try:
            parse_upstream(url)
        except InvalidName as exc:
            raise InvalidName(f"P2PHUB_UPSTREAM: {exc}") from exc
    return url


def _hub(environment: Mapping[str, str]) -> str | None:
    name = environment.get("P2PHUB_UPSTREAM_HUB")
    if name and not is_hub(name):
        raise InvalidName(f"P2PHUB_UPSTREAM_HUB: '{name}' is no HOST or HOST:PORT in lower case")
    return name or None


def _token(environment: Mapping[str, str]) -> str | None:
    """Return the token for the upstream (spec/mirrors.md §2)."""
    if token := environment.get("P2PHUB_UPSTREAM_TOKEN"):
        return _checked_token(token, "P2PHUB_UPSTREAM_TOKEN")
    if path := named_path(environment, "P2PHUB_UPSTREAM_TOKEN_FILE"):
        return read_token(path)
    # A token is of the hub that the tools of this shell are set up for, which may be the local door of a node.
    upstream, endpoint = (environment.get(name, "") for name in ("P2PHUB_UPSTREAM", "HF_ENDPOINT"))
    if (token := environment.get("HF_TOKEN")) and endpoint.rstrip("/") in ("", upstream.rstrip("/")):
        with contextlib.suppress(InvalidName):  # it was set for other programs
            return _checked_token(token, "HF_TOKEN")
    return None


def _checked_token(token: str, name: str) -> str:
    token = token.strip()
    if not token.isascii() or not token.isprintable() or " " in token or not 0 < len(token) <= TOKEN_SIZE_MAX:
        raise InvalidName(f"{name} holds no token")
    return token


def _label(environment: Mapping[str, str], name: str) -> str | None:
    label = environment.get(name)
    if not label:
        return None
    try:
        check_label(label)
    except InvalidName as exc:
        raise InvalidName(f"{name}: {exc}") from exc
    return label


def _is_on(environment: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    value = environment.get(name, "").strip().lower()
    if value == "":
        return default
    if value in ("0", "false", "no", "off"):
        return False
    if value in ("1", "true", "yes", "on"):
        return True
    raise InvalidName(f"{name}={value} is neither 1 nor 0")
