"""How people name things: `NAMESPACE/MODEL[@REVISION]` and `b3:<hash>` (spec/names.md).

The three kinds of revision cannot be confused: a version starts with a digit and
has a dot, a branch starts with a letter, a hash prefix is at least 12 hex digits
without a dot, and no branch is spelled like one. Records hold names of the same
grammar, so that whatever can be published can also be asked for.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Annotated

from msgspec import Meta, Struct

from .errors import InvalidName, InvalidSignature
from .ids import ID_SIZE, NamespaceId, NodeId, misspelling
from .signing import check_public_key

MODEL_SIZE_MAX = 96  # characters, as existing hubs allow; spec/names.md §2
BRANCH_SIZE_MAX = 128  # characters; spec/names.md §3
VERSION_SIZE_MAX = 64  # characters; spec/names.md §3
HASH_PREFIX_MIN = 12  # hex digits; spec/names.md §3

DOMAIN_SIZE_MAX = 253  # characters; RFC 1035 §2.3.4

# What cannot be a petname: words that stand for something else where a namespace may stand; spec/names.md §7.
RESERVED = frozenset(
    (
        "api", "b3", "collections", "control", "datasets", "docs", "healthz", "hf", "join", "kernels", "login",
        "models", "new", "none", "open", "organizations", "papers", "public", "resolve", "settings", "spaces", "static",
        "upload", "users", "v1", "xet",
    )
)  # fmt: skip

# Each can be matched in one way only, so that no text makes the matcher try many.
_HASH_PREFIX = rf"[0-9a-f]{{{HASH_PREFIX_MIN},{2 * ID_SIZE}}}"
_MODEL = r"(?!.*(?:--|\.\.))(?!.*\.git\Z)[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
OWNER_PATTERN = r"(?!.*(?:--|\.\.))[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"  # of a repository of another hub
_BRANCH = rf"(?!.*\.\.)(?!{_HASH_PREFIX}\Z)[A-Za-z][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*"
_SUFFIX = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_VERSION = rf"[0-9]+(?:\.[0-9A-Za-z]+)+(?:-{_SUFFIX})?(?:\+{_SUFFIX})?"
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# The last label starts with a letter, so that no IP address is taken for a domain.
_DOMAIN = rf"(?:{_LABEL}\.)+(?=[a-z]){_LABEL}"

# `\Z` and not `$`, which also matches before a last newline.
ModelName = Annotated[str, Meta(pattern=rf"\A{_MODEL}\Z", max_length=MODEL_SIZE_MAX)]
BranchName = Annotated[str, Meta(pattern=rf"\A{_BRANCH}\Z", max_length=BRANCH_SIZE_MAX)]
VersionName = Annotated[str, Meta(pattern=rf"\A{_VERSION}\Z", max_length=VERSION_SIZE_MAX)]
DomainName = Annotated[str, Meta(pattern=rf"\A{_DOMAIN}\Z", max_length=DOMAIN_SIZE_MAX)]


class HashRef(Struct, frozen=True):
    """`b3:<hash>`: a manifest or a single file, by content alone."""

    digest: bytes  # 32 bytes

    def __str__(self) -> str:
        return f"b3:{self.digest.hex()}"


class NameRef(Struct, frozen=True):
    """`NAMESPACE/MODEL[@REVISION]`; the parts are well formed, not resolved."""

    namespace: str | None  # namespace id, domain or petname; None is one's own
    model: str
    revision: str | None  # None is the branch `main`

    def __str__(self) -> str:
        namespace = f"{self.namespace}/" if self.namespace else ""
        return f"{namespace}{self.model}" + (f"@{self.revision}" if self.revision else "")


Reference = HashRef | NameRef


def parse_reference(text: str) -> Reference:
    """Return what `text` refers to; raises InvalidName with the rule that it breaks."""
    if text.startswith("b3:"):
        if not re.fullmatch(rf"b3:[0-9a-f]{{{2 * ID_SIZE}}}", text):
            raise InvalidName(
                f"'{text}' is no content hash: expected b3: and {2 * ID_SIZE} lower-case hex digits",
                hint=f"a part of one is given with a name: NAMESPACE/MODEL@HASH, of {HASH_PREFIX_MIN} digits or more",
            )
        return HashRef(bytes.fromhex(text[3:]))
    if "://" in text:
        raise InvalidName(
            f"'{text}' is an address, not the name of a model", hint="names look like NAMESPACE/MODEL@1.0.0"
        )
    if text.startswith(("/", ".", "~")):
        raise InvalidName(f"'{text}' is a path, not the name of a model", hint="names look like NAMESPACE/MODEL@1.0.0")
    name, separator, revision = text.partition("@") if "@" in text else text.partition(":")
    if separator and not revision:
        raise InvalidName(
            f"'{text}' has no revision after '{separator}'", hint=f"without the '{separator}', it means its branch main"
        )
    namespace, slash, model = name.partition("/")
    if not slash:
        namespace, model = "", name
    else:
        check_namespace(namespace)
    check_model(model)
    if revision:
        check_revision(revision)
    return NameRef(namespace or None, model, revision or None)


def check_model(text: str) -> None:
    """Raise InvalidName unless `text` is a model's name."""
    if not re.fullmatch(_MODEL, text) or len(text) > MODEL_SIZE_MAX:
        raise InvalidName(
            f"'{text}' is no model name: expected at most {MODEL_SIZE_MAX} letters, digits, '.', '_' and '-', "
            "with a letter or digit at both ends, and no '--', '..' or '.git'",
            hint=f"'{fitting}' is one" if (fitting := _fitting(text)) else None,
        )


def _fitting(text: str) -> str:
    """Return what of `text` can be a model's name; empty if nothing can."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:MODEL_SIZE_MAX].removesuffix(".git")
    name = re.sub(r"-{2,}", "-", re.sub(r"\.{2,}", ".", name)).strip("._-")
    return name if re.fullmatch(_MODEL, name) else ""


def is_owner(text: str) -> bool:
    """Say whether `text` can be what another hub calls the owner of a repository."""
    return re.fullmatch(OWNER_PATTERN, text) is not None and len(text) <= MODEL_SIZE_MAX


def is_version(text: str) -> bool:
    """Say whether `text` is spelled like a version, such as 1.2.0."""
    return re.fullmatch(_VERSION, text) is not None and len(text) <= VERSION_SIZE_MAX


def is_hash_prefix(text: str) -> bool:
    """Say whether `text` is spelled like the beginning of a revision's hash."""
    return re.fullmatch(_HASH_PREFIX, text) is not None


def is_branch(text: str) -> bool:
    """Say whether `text` is spelled like a branch."""
    return re.fullmatch(_BRANCH, text) is not None and len(text) <= BRANCH_SIZE_MAX


def check_branch(text: str) -> None:
    """Raise InvalidName unless `text` is a branch."""
    if not is_branch(text):
        raise InvalidName(
            f"'{text}' is no branch name: expected at most {BRANCH_SIZE_MAX} letters, digits, '.', '_', '-' and '/', "
            "such as main or team/test",
            hint="it begins with a letter, each part after a '/' with a letter or digit, "
            f"and {HASH_PREFIX_MIN} or more hex digits are a hash",
        )


def check_revision(text: str) -> None:
    """Raise InvalidName unless `text` is a version, a branch or a hash prefix."""
    if not (is_version(text) or is_branch(text) or is_hash_prefix(text)):
        raise InvalidName(
            f"'{text}' is no revision: expected a version (1.2.0), a branch (main) "
            f"or at least {HASH_PREFIX_MIN} hex digits of a hash",
            hint="write the digits without b3:" if text.startswith("b3:") else None,
        )


def is_namespace_id(text: str) -> bool:
    """Say whether `text` is spelled like a namespace id (rather than a domain or a petname)."""
    try:
        NamespaceId.parse(text)
    except InvalidName:
        return False
    return True


def is_domain(text: str) -> bool:
    """Say whether `text` is spelled like a domain: what has a dot is none of the other names of a namespace."""
    return re.fullmatch(_DOMAIN, text) is not None and len(text) <= DOMAIN_SIZE_MAX


def is_petname(text: str) -> bool:
    """Say whether `text` is spelled like a petname; it may still be reserved."""
    return re.fullmatch(_LABEL, text) is not None and not is_namespace_id(text)


def check_namespace(text: str) -> None:
    """Raise InvalidName unless `text` can stand for a namespace: a namespace id, a domain or a petname."""
    if not (is_domain(text) or is_petname(text) or is_namespace_id(text)):
        raise InvalidName(
            f"'{text}' is no namespace: expected a domain (lab.example), a petname or a namespace id",
            hint=misspelling(text) or "they are written in lower case",
        )


def check_new_name(text: str) -> None:
    """Raise InvalidName unless `text` is a domain, or a petname that may be given."""
    if is_namespace_id(text):
        raise InvalidName(f"'{text}' is a namespace id, which is nobody's to give a meaning")
    if text in RESERVED:
        raise InvalidName(f"'{text}' cannot be a petname: it means something else in names and addresses")
    if is_domain(text) or is_petname(text):
        return
    if not text.isascii() and "." in text:
        raise InvalidName(f"'{text}' is no domain in ASCII", hint=_ascii_hint(text))
    raise InvalidName(
        f"'{text}' is neither a domain (lab.example) nor a petname: a petname has 1 to 63 of a-z, 0-9 and -, "
        "with a letter or digit at both ends",
        hint=misspelling(text),
    )


def _ascii_hint(text: str) -> str | None:
    try:
        return f"write it as {text.encode('idna').decode()}"
    except UnicodeError:
        return None


class Address(Struct, frozen=True):
    """`p2phub://NODEID@HOST:PORT`: where a node can be reached, and who must answer there."""

    node: NodeId
    host: str
    port: int

    def __str__(self) -> str:
        return f"p2phub://{self.node}@{format_endpoint(self.host, self.port)}"


def parse_address(text: str) -> Address:
    """Return the node address that `text` writes; raises InvalidName."""
    rest = text.removeprefix("p2phub://")
    node, at, endpoint = rest.partition("@")
    if rest == text or not at:
        raise InvalidName(
            f"'{text}' is no node address: expected p2phub://NODEID@HOST:PORT",
            hint="`p2phub node` prints that of its machine when it starts",
        )
    try:
        check_public_key(node_id := NodeId.parse(node))
    except InvalidSignature as exc:
        raise InvalidName(f"'{node}' is no node id: {exc}") from exc
    return Address(node_id, *parse_endpoint(endpoint))


def parse_endpoint(text: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT` or `[IPV6]:PORT`; raises InvalidName."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]{1,253})):(0|[1-9][0-9]{0,4})", text)
    if not match or int(match[3]) >= 65536 or (match[1] and not _is_ipv6(match[1])):
        raise InvalidName(
            f"'{text}' is no HOST:PORT", hint="such as 192.0.2.7:8627 or [2001:db8::7]:8627; a port is 0 to 65535"
        )
    return match[1] or match[2], int(match[3])


def format_endpoint(host: str, port: int) -> str:
    """Return `HOST:PORT`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True
