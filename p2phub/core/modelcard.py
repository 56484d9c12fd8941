"""Read the card of a model or dataset: the head and the first words of its README.md.

    ---                        the head, YAML
    license: mit
    ---
    # Parrot 7B                the title

    A model that repeats.      the excerpt

People write cards, and no tool checks them, so that almost everything occurs. A field
that is odd is dropped, or taken as the text it is; only a head that is no YAML, or is
made to exhaust the reader, is refused.

We take the events of the YAML parser and not the values of a loader: every scalar
stays the text that was written. So `language: no` is Norwegian and not false, a score
keeps its digits, and no tag or date means anything.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from decimal import Context, Decimal
from itertools import islice
from typing import Any

from .description import (
    EXCERPT_LENGTH_MAX,
    LANGUAGES_MAX,
    LINK_LENGTH_MAX,
    METRICS_MAX,
    NAME_LENGTH_MAX,
    REPOSITORIES_MAX,
    REPOSITORY_LENGTH_MAX,
    RESULTS_MAX,
    TAGS_MAX,
    TITLE_LENGTH_MAX,
    VALUE_LENGTH_MAX,
    Card,
    MetricResult,
)
from .errors import InvalidData
from .licenses import TEXT_LENGTH_MAX as LICENSE_LENGTH_MAX
from .licenses import to_spdx

HEAD_SIZE_MAX = 1024 * 1024  # bytes
HEAD_DEPTH_MAX = 32  # nested containers; model-index has 7
BODY_SIZE_MAX = 16 * 1024  # bytes looked at for title and excerpt: the worst Markdown costs 0.3 s

_PROSE_LETTERS_MIN = 24  # a paragraph with fewer, links apart, is a row of badges or a note


def parse_card(data: bytes) -> Card:
    """Return the card in `data`, the bytes of a README.md.

    Raises InvalidData if its head is no YAML, uses aliases, is nested too deeply or is
    longer than HEAD_SIZE_MAX.
    """
    head_bytes, body = _split(data)
    head = _load(head_bytes.decode(errors="replace"))
    if not isinstance(head, dict):
        head = {}
    title, excerpt = _title_and_excerpt(body.decode(errors="ignore"))
    license_, license_name = _license(head)
    tasks = _texts(head.get("task_categories"), NAME_LENGTH_MAX, TAGS_MAX)
    tags = _texts(head.get("tags"), NAME_LENGTH_MAX, TAGS_MAX)
    return Card(
        task=_text(head.get("pipeline_tag"), NAME_LENGTH_MAX) or next(iter(tasks), None),
        library=_text(head.get("library_name"), NAME_LENGTH_MAX),
        license=license_,
        license_name=license_name,
        license_link=_text(head.get("license_link"), LINK_LENGTH_MAX),
        languages=_texts(head.get("language", head.get("languages")), NAME_LENGTH_MAX, LANGUAGES_MAX),
        # A dataset may have more task categories; people search for them as for tags.
        tags=tuple(dict.fromkeys(tags + tasks[1:]))[:TAGS_MAX],
        base_models=_texts(head.get("base_model"), REPOSITORY_LENGTH_MAX, REPOSITORIES_MAX),
        base_model_relation=_text(head.get("base_model_relation"), NAME_LENGTH_MAX),
        datasets=_texts(head.get("datasets"), REPOSITORY_LENGTH_MAX, REPOSITORIES_MAX),
        metrics=_texts(head.get("metrics"), NAME_LENGTH_MAX, METRICS_MAX),
        results=tuple(islice(_results(head.get("model-index")), RESULTS_MAX)),
        size_categories=_texts(head.get("size_categories"), NAME_LENGTH_MAX, TAGS_MAX),
        title=_text(head.get("pretty_name"), TITLE_LENGTH_MAX) or title,
        excerpt=excerpt,
    )


# --- The head

Node = Any
"""What YAML describes, recursively: text, None, a list of nodes or a dict from text to node."""

_FENCE = rb"---[ \t]*(?:\r?\n|\Z)"
_HEAD_START = re.compile(rb"(?:\xef\xbb\xbf)?\s*" + _FENCE)
_HEAD_END = re.compile(rb"^" + _FENCE, re.MULTILINE)


def _split(data: bytes) -> tuple[bytes, bytes]:
    """Return the head, without its fences, and the first BODY_SIZE_MAX bytes after it."""
    start = _HEAD_START.match(data, 0, HEAD_SIZE_MAX)
    end = _HEAD_END.search(data, start.end(), HEAD_SIZE_MAX) if start else None
    if start and end:
        return data[start.end() : end.start()], data[end.end() : end.end() + BODY_SIZE_MAX]
    if start and len(data) > HEAD_SIZE_MAX:
        raise InvalidData(f"card has a head of more than {HEAD_SIZE_MAX} bytes")
    return b"", data[:BODY_SIZE_MAX]


def _load(head: str) -> Node:
    """Return what the first document of `head` describes."""
    import yaml  # slow to import, and most programs that import us meet no card

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    stack: list[list[Node]] = [[]]
    node: Node
    try:
        for event in yaml.parse(head, Loader=loader):
            match event:
                case yaml.AliasEvent():
                    # Ten lines of them can stand for a billion nodes.
                    raise InvalidData("card has a head with YAML aliases")
                case yaml.CollectionStartEvent():
                    if len(stack) > HEAD_DEPTH_MAX:
                        raise InvalidData("card has a head that is nested too deeply")
                    stack.append([])
                    continue
                case yaml.ScalarEvent():
                    null = event.implicit[0] and event.value in ("", "~", "null", "Null", "NULL")
                    node = None if null else event.value
                case yaml.SequenceEndEvent():
                    node = stack.pop()
                case yaml.MappingEndEvent():
                    items = stack.pop()
                    pairs = zip(items[::2], items[1::2], strict=True)
                    node = {key: value for key, value in pairs if isinstance(key, str)}
                case yaml.DocumentEndEvent():
                    break
                case _:
                    continue
            stack[-1].append(node)
    except yaml.YAMLError as exc:
        raise InvalidData(f"card has a head that is not YAML: {_clean(str(exc))}") from exc
    return stack[0][0] if stack[0] else None


def _license(head: dict[str, Node]) -> tuple[str | None, str | None]:
    """Return the SPDX expression and the name of the licence."""
    stated = _texts(head.get("license"), LICENSE_LENGTH_MAX, REPOSITORIES_MAX)
    name = _text(head.get("license_name"), NAME_LENGTH_MAX)
    # A list names the licences of parts of the repository: all of them bind.
    parts = [to_spdx(text) for text in stated]
    spdx = None
    if len(parts) == 1:
        spdx = parts[0]
    elif parts and None not in parts:
        spdx = to_spdx(" AND ".join(f"({part})" for part in parts))
    if spdx is None and name is None and [text.lower() for text in stated] != ["unknown"]:
        name = _text(", ".join(stated), NAME_LENGTH_MAX)
    return spdx, name


def _results(index: Node) -> Iterator[MetricResult]:
    for model in _dicts(index):
        for result in _dicts(model.get("results")):
            dataset = result.get("dataset")
            named = dataset if isinstance(dataset, dict) else {}
            for metric in _dicts(result.get("metrics")):
                metric_name = _identity(metric, NAME_LENGTH_MAX)
                value = _score(metric.get("value"))
                if metric_name and value:
                    yield MetricResult(
                        metric=metric_name,
                        value=value,
                        task=_identity(result.get("task"), NAME_LENGTH_MAX),
                        dataset=_identity(dataset, REPOSITORY_LENGTH_MAX),
                        dataset_config=_text(named.get("config"), NAME_LENGTH_MAX),
                        dataset_split=_text(named.get("split"), NAME_LENGTH_MAX),
                    )


_NUMBER = re.compile(r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2})?)\s*%?\s*", re.ASCII)
_EXACT = Context(prec=VALUE_LENGTH_MAX)  # of our own: a program may have set the shared one


def _score(node: Node) -> str | None:
    """Return a number in the one plain decimal form: no exponent, no idle zeros."""
    match = _NUMBER.fullmatch(node) if isinstance(node, str) and len(node) <= VALUE_LENGTH_MAX else None
    if match is None:
        return None
    number = _EXACT.normalize(Decimal(match[1]))
    text = format(number, "f") if number else "0"
    return text if len(text) <= VALUE_LENGTH_MAX else None


def _identity(node: Node, length_max: int) -> str | None:
    """Return the id of a task, dataset or metric: `type` is for programs, `name` for people."""
    if isinstance(node, dict):
        return _text(node.get("type"), length_max) or _text(node.get("name"), length_max)
    return _text(node, length_max)


def _dicts(node: Node) -> list[dict[str, Node]]:
    items = node if isinstance(node, list) else [node]
    return [item for item in items if isinstance(item, dict)]


def _texts(node: Node, length_max: int, count_max: int) -> tuple[str, ...]:
    """Return the texts of a list, or of a single item that stands for one, each once."""
    items = node if isinstance(node, list) else [node]
    texts = (text for item in items if (text := _identity(item, length_max)))
    return tuple(islice(dict.fromkeys(texts), count_max))


def _text(node: Node, length_max: int) -> str | None:
    if not isinstance(node, str):
        return None
    # Far more than is kept, but not a megabyte.
    return _clean(node[: 4 * length_max])[:length_max].rstrip() or None


# Control characters, halves of surrogate pairs, and what changes the direction of text around it.
_UNPRINTABLE = re.compile("[\0-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


def _clean(text: str) -> str:
    """Return `text` on one line, without characters that could make a terminal or page lie."""
    return " ".join(_UNPRINTABLE.sub("", text).split())


# --- The body

_HTML_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
# Bounded, because each of a thousand <h1> would look for its end through all that follows.
_HTML_HEADING = re.compile(r"<h[1-6][^<>]*>(.{0,1000}?)</h[1-6]>", re.DOTALL | re.IGNORECASE)
_HTML_LINK = re.compile(r"<a\b[^<>]*>.{0,1000}?</a>", re.DOTALL | re.IGNORECASE)
_HTML_NO_PROSE = re.compile(r"<(?:table|ul|ol|pre|style|script)\b", re.IGNORECASE)
_HTML_TAG = re.compile(r"<[^<>]*>")


def _title_and_excerpt(body: str) -> tuple[str | None, str | None]:
    """Return the first heading and the first paragraph of prose, as plain text."""
    from markdown_it import MarkdownIt  # slow to import, see _load

    title = excerpt = None
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    for index, token in enumerate(tokens):
        if token.type == "heading_open":
            title = title or _text(_plain(tokens[index + 1].children), TITLE_LENGTH_MAX)
        elif token.type == "html_block":
            source = _HTML_COMMENT.sub("", token.content)
            if title is None and (match := _HTML_HEADING.search(source)):
                title = _text(_strip_tags(match[1]), TITLE_LENGTH_MAX)
            if excerpt is None and not _HTML_NO_PROSE.search(source):
                source = _HTML_HEADING.sub("", source)
                excerpt = _prose(_strip_tags(source), _strip_tags(_HTML_LINK.sub("", source)))
        elif token.type == "paragraph_open" and token.level == 0 and excerpt is None:  # not in a list
            children = tokens[index + 1].children
            excerpt = _prose(_plain(children), _plain(children, with_links=False))
    return title, excerpt


def _prose(text: str, links_apart: str) -> str | None:
    """Return `text` as an excerpt, if it is more than links and a few words."""
    if sum(map(str.isalpha, links_apart)) < _PROSE_LETTERS_MIN:
        return None
    text = _clean(text)
    if len(text) <= EXCERPT_LENGTH_MAX:
        return text
    cut = text[: EXCERPT_LENGTH_MAX - 1]
    return (cut.rsplit(" ", 1)[0] if " " in cut else cut) + "…"


def _plain(children: Sequence[Any] | None, *, with_links: bool = True) -> str:
    """Return the text of a heading or paragraph; pictures and tags have none."""
    parts = []
    in_link = False
    for token in children or ():
        if token.type in ("link_open", "link_close"):
            in_link = token.type == "link_open"
        elif token.type in ("text", "code_inline", "text_special") and (with_links or not in_link):
            parts.append(token.content)
        elif token.type in ("softbreak", "hardbreak", "html_inline"):
            parts.append("" if token.type == "html_inline" and not token.content.startswith("<br") else " ")
    return "".join(parts)


def _strip_tags(source: str) -> str:
    return html.unescape(_HTML_TAG.sub("", source))
