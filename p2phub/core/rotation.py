"""Change which keys an identity document names: documents in, documents out (spec/identity.md §6).

What comes out is to be signed by the root keys of both. Keys that published are retired, so that what they
signed before goes on to count.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from .errors import Conflict
from .identity import EPOCHS_MAX, KEYS_MAX, RETIRED_MAX, Epoch, IdentityDocument, RetiredKey, Role
from .ids import PublicKey

RoleName = Literal["root", "publish", "fresh"]
ROLES: tuple[RoleName, ...] = ("root", "publish", "fresh")

DOES: dict[str, str] = {"root": "change this identity", "publish": "publish", "fresh": "say what is newest"}  # by role


class End(Struct, frozen=True):
    """How much of the log of a key counts that publishes no more."""

    size: int  # records
    root: bytes | None = None  # of the log at this size; None: it is not known here


NOTHING = End(0)


def role_of(document: IdentityDocument, name: RoleName) -> Role:
    """Return the role called `name`."""
    role: Role = getattr(document, name)
    return role


def roles_of(document: IdentityDocument, key: PublicKey) -> list[RoleName]:
    """Return the roles that `key` has."""
    return [name for name in ROLES if key in role_of(document, name).keys]


def add_key(document: IdentityDocument, key: PublicKey, roles: Iterable[RoleName]) -> IdentityDocument:
    """Return `document` with `key` in `roles` besides the others. Raises Conflict if it has them, or may not."""
    changed = document
    for name in roles:
        role = role_of(changed, name)
        if name == "publish" and key in {each.key for each in document.retired}:
            raise Conflict(f"key {key} was retired, and a retired key never publishes again")
        if len(role.keys) >= KEYS_MAX and key not in role.keys:
            raise Conflict(f"a role has at most {KEYS_MAX} keys")
        changed = _with(changed, name, Role(_sorted((*role.keys, key)), role.threshold))
    if changed == document:
        raise Conflict(f"key {key} is named already")
    return changed


def remove_key(document: IdentityDocument, key: PublicKey, end: End) -> IdentityDocument:
    """Return `document` without `key` in any role; if it published, its log still counts up to `end`.

    For a key that is retired already, less may count. Raises Conflict if it is not named, or a role would be left
    with too few keys.
    """
    is_retired = key in {each.key for each in document.retired}
    held = roles_of(document, key)
    if not held and not is_retired:
        raise Conflict(f"key {key} is not named", hint="`p2phub id` shows the keys")
    changed = document
    for name in held:
        role = role_of(document, name)
        rest = tuple(each for each in role.keys if each != key)
        if len(rest) < role.threshold:
            needed = "1 key" if role.threshold == 1 else f"{role.threshold} keys"
            raise Conflict(
                f"{needed} must sign as {name}, and without {key} there would be {len(rest)}",
                hint="add another key first, or lower the threshold",
            )
        changed = _with(changed, name, Role(rest, role.threshold))
    return _retire(changed, key, end) if "publish" in held or is_retired else changed


def replace_key(
    document: IdentityDocument, old: PublicKey, new: PublicKey, roles: Collection[RoleName], end: End
) -> IdentityDocument:
    """Return `document` with `new` in place of `old` in `roles`; if `old` published, its log counts up to `end`.

    Raises Conflict if `old` has none of these roles.
    """
    changed = document
    for name in roles:
        role = role_of(document, name)
        if old not in role.keys:
            continue
        keys = _sorted(new if each == old else each for each in role.keys)
        changed = _with(changed, name, Role(keys, role.threshold))
        if name == "publish":
            changed = _retire(changed, old, end)
    if changed == document:
        raise Conflict(f"key {old} is in none of these roles: {', '.join(roles)}")
    return changed


def recover(document: IdentityDocument, new: PublicKey, *, ends: Mapping[PublicKey, End]) -> IdentityDocument:
    """Return `document` with `new` alone to publish and to keep fresh; all others that published are retired.

    ends: how far their logs count. The root keys stay.
    """
    changed = document
    for key in document.publish.keys:
        if key != new:
            changed = _retire(changed, key, ends.get(key, NOTHING))
    only = Role((new,), 1)
    return replace(changed, publish=only, fresh=only)


def set_root(document: IdentityDocument, keys: Iterable[PublicKey], threshold: int = 1) -> IdentityDocument:
    """Return `document` with other root keys."""
    return replace(document, root=Role(_sorted(keys), threshold))


def set_threshold(document: IdentityDocument, name: RoleName, threshold: int) -> IdentityDocument:
    """Return `document` with another number of keys that must sign. Raises Conflict if there are not so many."""
    role = role_of(document, name)
    if name == "publish" and threshold != 1:
        raise Conflict("each publishing key keeps its own log, so that one is enough")
    if not 1 <= threshold <= len(role.keys):
        raise Conflict(
            f"{threshold} {name} keys cannot be asked for where there are {len(role.keys)}",
            hint="`p2phub id add-key REQUEST --role root` adds one",
        )
    return _with(document, name, Role(role.keys, threshold))


def describe(before: IdentityDocument, after: IdentityDocument) -> list[str]:
    """Return what `after` changes of `before`, in lines for a person; none if that is nothing."""
    return [
        *_describe_keys(before, after),
        *_describe_thresholds(before, after),
        *_describe_retired(before, after),
        *(f"claims the domain {each}" for each in after.domains if each not in before.domains),
        *(f"claims the domain {each} no longer" for each in before.domains if each not in after.domains),
        *(
            f"closes a log of key {each.key} at {each.size} {'record' if each.size == 1 else 'records'}"
            for each in after.epochs
            if each not in before.epochs and each.key in after.publish.keys
        ),
        *(["another key signs for other tools"] if before.companion != after.companion else []),
        *(["others encrypt to another key"] if before.recipient != after.recipient else []),
    ]


def _describe_keys(before: IdentityDocument, after: IdentityDocument) -> Iterator[str]:
    keys = {key for document in (before, after) for name in ROLES for key in role_of(document, name).keys}
    for key in sorted(keys):
        had, has = roles_of(before, key), roles_of(after, key)
        if gained := [DOES[name] for name in has if name not in had]:
            yield f"key {key} may {' and '.join(gained)}"
        if lost := [DOES[name] for name in had if name not in has]:
            yield f"key {key} may no longer {' or '.join(lost)}"


def _describe_thresholds(before: IdentityDocument, after: IdentityDocument) -> Iterator[str]:
    for name in ROLES:
        was, role = role_of(before, name).threshold, role_of(after, name)
        if was != role.threshold:
            yield f"{role.threshold} of {len(role.keys)} keys must sign to {DOES[name]}; before it was {was}"


def _describe_retired(before: IdentityDocument, after: IdentityDocument) -> Iterator[str]:
    known = {each.key: _counted(before, each.key) for each in before.retired}
    for each in after.retired:
        size = _counted(after, each.key)
        if known.get(each.key) != size and size:
            first = "the first record goes" if size == 1 else f"the first {size} records go"
            yield f"of what key {each.key} signed, {first} on to count"
        elif known.get(each.key) != size:
            yield f"nothing that key {each.key} signed counts"
    kept = {*after.publish.keys, *(each.key for each in after.retired)}
    for key in (*before.publish.keys, *known):
        if key not in kept:
            yield f"nothing that key {key} signed counts"


def _counted(document: IdentityDocument, key: PublicKey) -> int:
    """Return how many records of a retired key count."""
    last = sum(each.size for each in document.retired if each.key == key)
    return last + sum(each.size for each in document.epochs if each.key == key)


def _with(document: IdentityDocument, name: RoleName, role: Role) -> IdentityDocument:
    match name:
        case "root":
            return replace(document, root=role)
        case "publish":
            return replace(document, publish=role)
        case "fresh":
            return replace(document, fresh=role)


def _retire(document: IdentityDocument, key: PublicKey, end: End) -> IdentityDocument:
    """Let the last log of `key` count up to `end`, and nothing that comes after it.

    The log is closed, so that its root is fixed: a thief who signs another history of it could otherwise take away
    what was signed before (spec/forks.md §3).
    """
    retired = {each.key: each for each in document.retired}
    epochs = [each for each in document.epochs if each.key == key]
    others = tuple(each for each in document.epochs if each.key != key)
    is_closed = key in retired and not retired[key].size and bool(epochs)
    if is_closed:
        # When it was retired: of the same log, less counts.
        before, number = epochs[-1].size, epochs.pop().number
    else:
        before, number = retired[key].size if key in retired else end.size, len(epochs) + 1
    if end.size > before:
        raise Conflict(f"of the last log of {key} {before} records count, and it cannot become more")
    if len(retired) >= RETIRED_MAX and key not in retired:
        raise Conflict(f"{RETIRED_MAX} keys were retired already, and a document has room for no more")
    size = end.size
    if end.root is not None and (size or is_closed) and len(others) + len(epochs) < EPOCHS_MAX:
        epochs.append(Epoch(key, number, size, end.root))
        size = 0
    elif is_closed:
        raise Conflict(f"the records of {key} that go on to count must be known here")
    retired[key] = RetiredKey(key, size)
    return replace(
        document,
        retired=tuple(retired[each] for each in sorted(retired)),
        epochs=tuple(sorted((*others, *epochs), key=lambda each: (each.key, each.number))),
    )


def _sorted(keys: Iterable[PublicKey]) -> tuple[PublicKey, ...]:
    return tuple(sorted(set(keys)))
