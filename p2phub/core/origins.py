"""URLs of HTTP origins, as people and manifests write them (spec/origins.md §1).

    https://models.example/parrot/{path}   ──path of a file──▶ the URL of that file
    https://models.example/parrot          ──the same──▶ …/parrot/PATH

One grammar, and a narrow one: what two programs could read in two ways is refused.
What is shown of a URL is its host alone: the rest may be a secret.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from urllib.parse import quote

from msgspec import Struct

from .errors import InvalidData, InvalidName

URL_SIZE_MAX = 2048  # characters of what people and manifests write; spec/origins.md §1
ORIGIN_URLS_MAX = 8  # in a manifest; spec/manifest.md §2
GIVEN_MAX = 16  # for one fetch; spec/local-api.md §2.1
PATH_PLACE = "{path}"  # spec/origins.md §1

HUB_SIZE_MAX = 261  # characters of the name of another hub; spec/mirrors.md §1
HUB_PATTERN = r"(?:\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::[1-9][0-9]{0,4})?"  # its endpoint

_PORTS = {"http": 80, "https": 443}


class Url(Struct, frozen=True):
    """An absolute URL, taken apart."""

    scheme: str  # "http" or "https"
    host: str  # in lower case; an IPv6 address without brackets
    port: int
    user: str | None  # `USER:PASSWORD`, percent-encoded
    target: str  # path and query, as they are asked for

    @property
    def endpoint(self) -> str:
        """Host and port, without the port that goes without saying."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def is_same_server(self, other: Url) -> bool:
        """Say whether a secret for the one may be told to the other."""
        return (self.scheme, self.host, self.port) == (other.scheme, other.host, other.port)

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user is not None else ""
        return f"{self.scheme}://{user}{self.endpoint}{self.target}"


class OriginFile(Struct, frozen=True):
    """A file as an origin has it."""

    url: Url
    size: int | None  # bytes; None if nobody knows yet
    label: str  # what people call it


def parse_url(text: str) -> Url:
    """Return the parts of an absolute http or https URL. Raises InvalidName, whose text repeats nothing of it."""
    # In this order: what stands before the first `/` or `?` is the server, whatever it holds.
    match = re.fullmatch(r"(https?)://([^/?#]*)(/[^?#]*)?(\?[^#]*)?", text, re.IGNORECASE)
    if not match:
        raise InvalidName("a URL has the form http(s)://HOST[:PORT]/PATH, without a #")
    if not re.fullmatch(r"[A-Za-z0-9._~!$&'()*+,;=:@/?%\[\]-]*", text):
        raise InvalidName("a URL has a character that must be percent-encoded, such as a space (%20)")
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise InvalidName("a URL has a % that is not followed by two hex digits")
    scheme = match[1].lower()
    user, at, endpoint = match[2].rpartition("@")
    if "@" in user:
        raise InvalidName("a URL has a second @ before the host: write %40")
    host, port = _parse_endpoint(endpoint, _PORTS[scheme])
    return Url(scheme, host, port, user if at else None, (match[3] or "/") + (match[4] or ""))


def is_hub(text: str) -> bool:
    """Say whether `text` can be the name of another hub: host and port, as `Url.endpoint` gives them."""
    return re.fullmatch(HUB_PATTERN, text) is not None and len(text) <= HUB_SIZE_MAX


def check_given(text: str) -> None:
    """Raise InvalidName unless `text` is a template that the owner of this node may give."""
    if len(text) > URL_SIZE_MAX:
        raise InvalidName(f"the URL of an origin has at most {URL_SIZE_MAX} characters")
    if text.count(PATH_PLACE) > 1:
        raise InvalidName(f"the URL of an origin has {PATH_PLACE} more than once")
    # Not a hex digit, so that no percent-encoding comes about.
    url = _parse_template(text)
    if PATH_PLACE in text.partition("://")[2].split("/")[0].split("?")[0]:
        raise InvalidName(f"the URL of an origin has {PATH_PLACE} in its host")
    if url.user == "":
        raise InvalidName("a URL has an @ and no user before it")


def check_published(text: str) -> None:
    """Raise InvalidData unless `text` is a template that a manifest may hold."""
    try:
        check_given(text)
    except InvalidName as exc:
        raise InvalidData(f"an origin's URL is none: {exc}") from exc
    if _parse_template(text).user is not None:
        raise InvalidData("an origin's URL in a manifest names a user: everybody can read it")
    if "?" in text and PATH_PLACE not in text:
        raise InvalidData(f"an origin's URL in a manifest has a query and no {PATH_PLACE}")


def url_of_path(template: str, path: str) -> Url:
    """Return the URL of the file at `path` of a repository. Raises InvalidName if `template` is of one file only."""
    check_given(template)
    quoted = quote(path, safe="/")
    if PATH_PLACE in template:
        return parse_url(template.replace(PATH_PLACE, quoted))
    if "?" in template:
        raise InvalidName(
            f"the URL of a repository's origin has a query and no {PATH_PLACE}: where does the path go?",
            hint=f"write {PATH_PLACE} where it goes, such as https://models.example/{PATH_PLACE}?download=1",
        )
    return parse_url(template + ("" if template.endswith("/") else "/") + quoted)


def host_of(template: str) -> str:
    """Return host and port of a template, which is all that is shown of it. Raises InvalidName."""
    return _parse_template(template).endpoint


def url_of_file(template: str) -> Url:
    """Return the URL of a single file. Raises InvalidName if `template` is of a repository."""
    check_given(template)
    if PATH_PLACE in template:
        hint = "write the URL of the file itself, or name its repository: p2phub fetch NAMESPACE/MODEL --include PATH"
        raise InvalidName(
            f"a file that is asked for by its hash has no path to put for {PATH_PLACE}",
            hint=hint,
        )
    return parse_url(template)


def _parse_endpoint(text: str, port: int) -> tuple[str, int]:
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,253}))(?::([0-9]{1,5}))?", text)
    if not match or (match[3] and not 1 <= int(match[3]) <= 65535):
        raise InvalidName("a URL has no HOST[:PORT]")
    if match[1]:
        try:
            return str(IPv6Address(match[1])), int(match[3] or port)
        except ValueError as exc:
            raise InvalidName("a URL has something in brackets that is no IPv6 address") from exc
    return match[2].lower(), int(match[3] or port)


def _parse_template(template: str) -> Url:
    """Return the URL of some file that `template` may be of. Raises InvalidName."""
    return parse_url(template.replace(PATH_PLACE, "p"))
