"""Words as search compares them: without case, accents and punctuation (spec/search.md §2).

    "Forêts-brûlées_7B" ──▶ forets, brulees, 7b

The same function reads what is published and what people type, so that both meet whatever their spelling. Scripts
that put no spaces between words are cut into pairs of characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

WORD_LENGTH_MAX = 64  # characters; longer ones are cut; spec/search.md §2

# What ASCII characters are in words: the small letter, the digit; a space else.
_PLAIN = {code: chr(code).lower() if chr(code).isalnum() else " " for code in range(128)}
# Compiled when a text first needs them: that takes 5 ms, which every command would wait for.
# Accents of Latin, Greek and Cyrillic, points of Hebrew, vowel signs of Arabic: people leave them out when they type.
_MARKS = "[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u064b-\u065f\u0670]"
# In the scripts of South and South-East Asia signs are parts of words, though no letters.
_SIGNS = "\u0900-\u0963\u0966-\u0dff\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb0-\u0ecd\u1000-\u109f"
_WORD = f"(?:[^\\W_]|[{_SIGNS}])+"
_UNSPACED = "\u3005\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_RUNS = f"[{_UNSPACED}]+|[^{_UNSPACED}]+"
_IS_UNSPACED = f"[{_UNSPACED}]"


def words(text: str) -> list[str]:
    """Return the words of `text` in their order, each in the one form that search knows."""
    if text.isascii():
        found = text.translate(_PLAIN).split()
        is_long = max(map(len, found), default=0) > WORD_LENGTH_MAX
        return [word[:WORD_LENGTH_MAX] for word in found] if is_long else found
    plain = re.sub(_MARKS, "", unicodedata.normalize("NFKD", text)).casefold()
    # Composed again, because Korean syllables came apart as well.
    plain = unicodedata.normalize("NFC", re.sub(_MARKS, "", unicodedata.normalize("NFKD", plain)))
    cut: list[str] = []
    for match in re.finditer(_WORD, plain):
        cut += _cut(match[0])
    return cut


def squeeze(text: str) -> str:
    """Return `text` without what stands between its words: `Parrot-7B_v2` is `parrot7bv2`."""
    return "".join(words(text))


def trigrams(word: str) -> set[str]:
    """Return every three characters in a row; none for a shorter word."""
    return {word[at : at + 3] for at in range(len(word) - 2)}


def distinct(items: Iterable[str], limit: int) -> list[str]:
    """Return the first `limit` different items in their order; the last item is always among them."""
    listed = list(items)
    kept = list(dict.fromkeys(listed))
    if listed:
        kept.remove(listed[-1])
        kept = [*kept[: limit - 1], listed[-1]]
    return kept


def _cut(word: str) -> list[str]:
    """Cut a word of a script without spaces into overlapping pairs of characters."""
    if not re.search(_IS_UNSPACED, word):
        return [word[:WORD_LENGTH_MAX]]
    found: list[str] = []
    for run in re.findall(_RUNS, word):
        if re.match(_IS_UNSPACED, run) and len(run) > 2:
            found += (run[at : at + 2] for at in range(len(run) - 1))
        else:
            found.append(run[:WORD_LENGTH_MAX])
    return found
