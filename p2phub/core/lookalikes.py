"""Which names a person may take for each other (spec/names.md §9).

    0rgdomain.example ──skeleton──▶ orgdomain·example ◀──skeleton── orgdomaln… differs in one letter

Not proof of anything: two honest names may be alike. So people are told, and nothing is refused.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

LETTERS_MIN = 5  # of names that differ in one letter: shorter ones do so by chance; spec/names.md §9
REPLICAS_MIN = 10  # nodes that hold what another is compared with; spec/names.md §9
REPLICAS_RATIO = 10  # times as many as hold this one; spec/names.md §9

# What looks like another letter, in the order in which it is replaced.
_PAIRS = (("rn", "m"), ("vv", "w"), ("cl", "d"), ("nn", "m"))
_SINGLE = str.maketrans("01i|59", "olllsg", "-_.")
# Letters of other scripts that look like those of the Latin one.
_SCRIPTS = str.maketrans(
    "аеорсухіјѕԁɡһӏԛԝкмнтвьαινορτυχκγϲϳ",
    "aeopcyxijsdghlqwkmhtbbaivoptuxkycj",
)


def skeleton(name: str) -> str:
    """Return what is left of a name once letters that look alike are the same; equal for names that look alike."""
    text = unicodedata.normalize("NFKD", shown(name)).lower().translate(_SCRIPTS)
    text = "".join(char for char in text if not unicodedata.combining(char)).translate(_SINGLE)
    for pair, letter in _PAIRS:
        text = text.replace(pair, letter)
    return text


def shown(name: str) -> str:
    """Return a domain as browsers show it: `xn--…` labels in their own letters, where they are such."""
    labels = []
    for label in name.split("."):
        try:
            labels.append(label.encode().decode("idna") if label.startswith("xn--") else label)
        except UnicodeError:
            labels.append(label)
    return ".".join(labels)


def alike(name: str, known: str) -> str | None:
    """Return in which way `name` looks like another name, `known`; None if it does not, or is the same."""
    if name == known:
        return None
    if skeleton(name) == skeleton(known):
        return "looks like"
    if min(len(name), len(known)) >= LETTERS_MIN and _is_one_letter_apart(name, known):
        return "differs in one letter from"
    if "." in known and name.startswith((f"{known}.", f"{known}-")):
        return "begins like"
    first, other = name.partition("."), known.partition(".")
    if len(first[0]) >= LETTERS_MIN and first[1] and other[1] and skeleton(first[0]) == skeleton(other[0]):
        return "has another ending than"
    return None


def warnings(name: str, known: Iterable[str]) -> list[str]:
    """Return what a person should know of a new name before trusting it, a sentence each; `known` means something."""
    found = [
        f"{name} {how} {other}, which means another publisher here"
        for other in sorted(known)
        if (how := alike(name, other)) is not None
    ]
    if (text := shown(name)) != name:
        found.append(f"{name} has letters of other scripts: it is shown as '{text}' elsewhere")
    return found


def is_overshadowed(replicas: int, others: int) -> bool:
    """Say whether a repository held by `replicas` nodes may be a copy of one of the same name that `others` hold."""
    return others >= max(REPLICAS_MIN, REPLICAS_RATIO * replicas)


def _is_one_letter_apart(one: str, other: str) -> bool:
    """Say whether one letter was changed, added or left out, or two neighbours changed places."""
    if abs(len(one) - len(other)) > 1:
        return False
    start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    rest, their = one[start:], other[start:]
    return (
        rest[1:] == their[1:]
        or rest[1:] == their
        or rest == their[1:]
        or (rest[:2] == their[1::-1] and rest[2:] == their[2:])
    )
