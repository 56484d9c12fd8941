"""Cards as people write them, and heads made to hurt."""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import pairwise
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from p2phub.core import description
from p2phub.core.description import Card, MetricResult
from p2phub.core.errors import InvalidData
from p2phub.core.modelcard import parse_card


def card(head: str, body: str = "") -> Card:
    return parse_card(f"---\n{head}\n---\n{body}".encode())


# --- The head

MODEL_CARD = """\
---
language:
- en
- fr
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
tags:
- parrot
- conversational
base_model: lab/finch-7b
base_model_relation: finetune
datasets:
- lab/birdsong
metrics:
- accuracy
model-index:
- name: parrot-7b
  results:
  - task:
      type: text-generation
      name: Text Generation
    dataset:
      name: Birdsong (held out)
      type: lab/birdsong
      config: en
      split: test
    metrics:
    - type: accuracy
      value: 0.8500
      name: Accuracy
    - type: perplexity
      value: 1.25e1
---
# Parrot 7B

A model that repeats *what it hears*, trained on
[birdsong](https://example.org).
"""


def test_a_model_card_is_read() -> None:
    assert parse_card(MODEL_CARD.encode()) == Card(
        task="text-generation",
        library="transformers",
        license="Apache-2.0",
        languages=("en", "fr"),
        tags=("parrot", "conversational"),
        base_models=("lab/finch-7b",),
        base_model_relation="finetune",
        datasets=("lab/birdsong",),
        metrics=("accuracy",),
        results=(
            MetricResult("accuracy", "0.85", "text-generation", "lab/birdsong", "en", "test"),
            MetricResult("perplexity", "12.5", "text-generation", "lab/birdsong", "en", "test"),
        ),
        title="Parrot 7B",
        excerpt="A model that repeats what it hears, trained on birdsong.",
    )


def test_a_dataset_card_is_read() -> None:
    read = card(
        "pretty_name: Bird Song\n"
        "license: [cc-by-4.0, odc-by]\n"
        "task_categories:\n- audio-classification\n- text-to-audio\n"
        "size_categories:\n- 10K<n<100K\n"
        "tags: [audio]",
        "# dataset",
    )

    assert read == Card(
        task="audio-classification",
        license="CC-BY-4.0 AND ODC-By-1.0",
        tags=("audio", "text-to-audio"),
        size_categories=("10K<n<100K",),
        title="Bird Song",
    )


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("language: no", Card(languages=("no",))),
        ("language: [yes, 1.10, 2020-01-01, 0x1F, on]", Card(languages=("yes", "1.10", "2020-01-01", "0x1F", "on"))),
        ("tags: one", Card(tags=("one",))),
        ("tags: [a, null, ~, '', a, [b], {c: d}, 7]", Card(tags=("a", "7"))),
        ("tags:", Card()),
        ("tags: {a: b}", Card()),
        ("metrics: [{name: wer}, {type: cer, name: CER}, bleu]", Card(metrics=("wer", "cer", "bleu"))),
        ("pipeline_tag: [a]", Card()),
        ("pipeline_tag: 12", Card(task="12")),
        ("library_name: null", Card()),
        ("base_model: [a/b, c/d]", Card(base_models=("a/b", "c/d"))),
        ("? [a, b]\n: c\ntags: [x]", Card(tags=("x",))),
        ("? {a: b}\n: c\n? \n: d\ntags: [x]", Card(tags=("x",))),
        ("tags: [a]\ntags: [b]", Card(tags=("b",))),
        ("tags: [&anchor a]", Card(tags=("a",))),
        ("tags: [!!python/object/apply:os.system [ls], !!binary aGk=, !x y]", Card(tags=("aGk=", "y"))),
        ('library_name: "a\\tb\\u0007\\u202ec\\n d"', Card(library="a bc d")),
        ("license: unknown", Card()),
        ("license: other\nlicense_name: house\nlicense_link: LICENSE", Card(
            license="LicenseRef-other", license_name="house", license_link="LICENSE")),
        ("license: our own", Card(license_name="our own")),
        ("license: [mit, our own]", Card(license_name="mit, our own")),
        ("license: [mit]", Card(license="MIT")),
        ("license: [MIT OR ISC, zlib]", Card(license="(MIT OR ISC) AND Zlib")),
        ("license: {a: b}", Card()),
        ("- a\n- b", Card()),
        ("just text", Card()),
        ("", Card()),
        ("# comment", Card()),
    ],
)  # fmt: skip
def test_an_odd_head_costs_only_what_is_odd(head: str, expected: Card) -> None:
    assert card(head) == expected


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("0.8500", "0.85"),
        ("85", "85"),
        ("100", "100"),
        ("'85.20'", "85.2"),
        ("85.2%", "85.2"),
        ("1e-3", "0.001"),
        ("-.5", "-0.5"),
        ("+1.", "1"),
        ("-0.0", "0"),
        ("1e99", None),
        ("1e999999999", None),
        ("0x10", None),
        ("1_000", None),
        ("nan", None),
        (".inf", None),
        ("٣", None),
        ("N/A", None),
        ("null", None),
        ("[1, 2]", None),
        ("{mean: 1}", None),
        ("1" * 41, None),
        ("0.3333333333333333333333333333333333333", "0.3333333333333333333333333333333333333"),
    ],
)
def test_a_score_is_plain_decimal_text_or_dropped(written: str, value: str | None) -> None:
    results = card(f"model-index: [{{results: [{{metrics: [{{type: m, value: {written}}}]}}]}}]").results

    assert [result.value for result in results] == ([value] if value else [])


@pytest.mark.parametrize(
    "index",
    [
        "x",
        "[x]",
        "{results: x}",
        "[{results: [x, {metrics: x}, {metrics: [x, {type: a}, {value: 1}, {type: [], value: 1}]}]}]",
    ],
)
def test_results_without_a_metric_and_a_value_are_dropped(index: str) -> None:
    assert card(f"model-index: {index}").results == ()


def test_a_result_may_name_its_parts_by_text_alone() -> None:
    read = card("model-index: {results: [{task: asr, dataset: birds, metrics: [{name: wer, value: 1}]}]}")

    assert read.results == (MetricResult("wer", "1", "asr", "birds"),)


def test_lists_and_texts_are_cut_at_their_limits() -> None:
    many = "".join(f"\n- t{i}" for i in range(1000))
    results = "".join(f"\n  - metrics: [{{type: m{i}, value: {i}}}]" for i in range(1000))
    read = card(
        f"tags: {many}\nlanguage: {many}\ndatasets: {many}\nmetrics: {many}\nsize_categories: {many}\n"
        f"license_link: {'x' * 5000}\nlibrary_name: {'y ' * 5000}\nmodel-index:\n- results: {results}",
        f"# {'t' * 5000}\n\n{'word ' * 1000}",
    )

    assert len(read.tags) == description.TAGS_MAX
    assert len(read.languages) == description.LANGUAGES_MAX
    assert len(read.datasets) == description.REPOSITORIES_MAX
    assert len(read.metrics) == description.METRICS_MAX
    assert len(read.results) == description.RESULTS_MAX
    assert len(read.license_link or "") == description.LINK_LENGTH_MAX
    assert len(read.title or "") == description.TITLE_LENGTH_MAX
    assert read.library == ("y " * 64).strip()
    assert len(read.excerpt or "") <= description.EXCERPT_LENGTH_MAX
    assert_is_signable(read)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", Card()),
        (b"---", Card()),
        (b"---\n---", Card()),
        (b"---\r\nlicense: mit\r\n---\r\n# T\r\n", Card(license="MIT", title="T")),
        (b"\xef\xbb\xbf---\nlicense: mit\n---\n# T", Card(license="MIT", title="T")),
        (b"\n\n---  \nlicense: mit\n--- \n# T", Card(license="MIT", title="T")),
        (b"---\nlicense: mit\n...\nlicense: isc\n---\n", Card(license="MIT")),
        (b"---\nlicense: mit\n", Card(title=None)),
        (b"# T\n---\nlicense: mit\n---\n", Card(title="T")),
        (b"---\ntags: [\xff]\n---\n# \xfft\xff", Card(tags=("\ufffd",), title="t")),
    ],
)
def test_the_head_is_found_between_its_fences(data: bytes, expected: Card) -> None:
    read = parse_card(data)

    assert msgspec.structs.replace(read, excerpt=None) == expected


REFUSED = {
    "no YAML": ("a: [b", "not YAML"),
    "tab as indentation": ("a:\n\t- b", "not YAML"),
    "control character": ("a: \0", "not YAML"),
    "unknown alias": ("a: *b", "not YAML|aliases"),
    "alias": ("a: &x [b]\nc: *x", "aliases"),
    "merge": ("a: &x {b: c}\nd:\n  <<: *x", "aliases"),
    "billion laughs": (
        "a: &a [lol, lol]\n" + "".join(f"{c}: &{c} [*{p}, *{p}]\n" for p, c in pairwise("abcdefghi")),
        "aliases",
    ),
    "endless list": ("a: &a [*a]", "aliases"),
    "deep lists": ("[" * 1000 + "]" * 1000, "nested too deeply|not YAML"),
    "deep maps": ("{a: " * 100_000, "nested too deeply|not YAML"),
    "deep block lists": ("- " * 500_000, "nested too deeply|not YAML"),
    "deep keys": ("? " * 500_000, "nested too deeply|not YAML"),
    "larger than the limit": ("a: " + "b" * 1024 * 1024, "head of more than"),
}  # fmt: skip


@pytest.mark.parametrize(("head", "why"), REFUSED.values(), ids=REFUSED)
def test_a_head_that_is_no_yaml_or_a_bomb_is_refused_at_once(head: str, why: str) -> None:
    begin = time.process_time()
    with pytest.raises(InvalidData, match=why):
        card(head)

    assert time.process_time() - begin < 1


@pytest.mark.parametrize("head", ["[" + "a," * 500_000 + "]", "a: 1\n" * 200_000, "a: |\n" + "\n" * 1_000_000])
def test_a_head_at_the_limit_is_read_in_linear_time(head: str) -> None:
    begin = time.process_time()
    card(head)

    assert time.process_time() - begin < 5


def test_the_head_is_read_without_the_c_library_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)

    assert parse_card(MODEL_CARD.encode()).languages == ("en", "fr")
    assert card(r'library_name: "a\ud800b"').library == "ab"
    with pytest.raises(InvalidData, match="aliases"):
        card("a: &x [b]\nc: *x")


# --- The body


@pytest.mark.parametrize(
    ("body", "title"),
    [
        ("# One\n\n# Two", "One"),
        ("Prose comes first, and the heading later.\n\n## Late", "Late"),
        ("One\n===", "One"),
        ("# A *b* `c` [d](e) ![f](g) &amp; \\# <br>h", "A b c d & # h"),
        ("```\n# not this\n```\n## This", "This"),
        ("    # not this\n\n## This", "This"),
        ('<h1 align="center">\n  <img src="x"> Centred\n</h1>', "Centred"),
        ('<div>\n<p><img></p>\n<h2>In a box &amp; more</h2>\n</div>', "In a box & more"),
        ("<!-- <h1>no</h1> -->\n\n# Yes", "Yes"),
        ("#\n\n# Second", "Second"),
        ("no heading", None),
    ],
)  # fmt: skip
def test_the_title_is_the_first_heading_as_plain_text(body: str, title: str | None) -> None:
    assert card("", body).title == title


PROSE = "This is the first real sentence of the card."


@pytest.mark.parametrize(
    "before",
    [
        "",
        "# Heading that is long enough to be prose\n\n",
        "[![build passing and other words](https://a/b.svg)](https://a) ![a picture of words](x)\n\n",
        "[Paper of the model](a) | [Code of the model](b) | [Demonstration](c)\n\n",
        "| a | table with many words in it |\n|---|---|\n| b | and some more words in it |\n\n",
        "- a list of many words that says something\n- and more\n\n",
        "> a quotation of many words that says something\n\n",
        "```\ncode that is long enough to be prose\n```\n\n",
        "<!-- a comment of many words that says something -->\n\n",
        '<p align="center">\n<a href="x">Home page of the model</a> <img alt="words words words words"></p>\n\n',
        "<table><tr><td>a table of many words that says something</td></tr></table>\n\n",
        "<style>\n.words { that: says; something: here }\n</style>\n\n",
        "Short.\n\n",
        "[More Information Needed]\n\n",
        "---\n\n",
        "[ref]: https://example.org 'a definition of many words'\n\n",
    ],
)
def test_the_excerpt_is_the_first_prose(before: str) -> None:
    assert card("", before + PROSE + "\n\nMore.").excerpt == PROSE


@pytest.mark.parametrize(
    ("body", "excerpt"),
    [
        ("Some **bold** _text_ with `code`,\na [link](https://a.b) and ![no picture](c).",
         "Some bold text with code, a link and ."),
        ("Two lines of prose  \nwith <b>tags</b>,<br>&lt;entities&gt; and \\*stars\\*.",
         "Two lines of prose with tags, <entities> and *stars*."),
        ("<p align='center'>\n A centred <b>sentence</b> about &quot;birds&quot;.\n</p>",
         'A centred sentence about "birds".'),
        ("Un modèle qui répète — 鸚鵡學舌。 Bon !", "Un modèle qui répète — 鸚鵡學舌。 Bon !"),
        ("bidi \u202e override and bell \a in a sentence", "bidi override and bell in a sentence"),
    ],
)  # fmt: skip
def test_an_excerpt_is_plain_text(body: str, excerpt: str) -> None:
    assert card("", body).excerpt == excerpt


def test_a_long_excerpt_ends_at_a_word() -> None:
    excerpt = card("", "word " * 1000).excerpt or ""

    assert len(excerpt) <= description.EXCERPT_LENGTH_MAX
    assert excerpt.endswith("word…")


@pytest.mark.parametrize(
    "unit",
    ["[", "![", "[a][", "*a ", "**", "`a``b", "<", "<a ", "<!--", "<h1>", "<h1>\n\n", "<a>", "> ", "- ", "|a", "\\"],
)  # fmt: skip
def test_hostile_markdown_is_read_in_a_moment(unit: str) -> None:
    begin = time.process_time()
    card("", unit * (1024 * 1024 // len(unit)))

    assert time.process_time() - begin < 2


# --- Laws


def assert_is_signable(value: Any) -> None:
    """Assert that `value` keeps the bounds of its type and holds no floats."""
    plain = msgspec.to_builtins(value)
    assert msgspec.convert(plain, type(value)) == value
    stack = [plain]
    while stack:
        item = stack.pop()
        assert isinstance(item, dict | list | tuple | str | int)
        if isinstance(item, str):
            item.encode()
        elif isinstance(item, dict):
            stack += item.values()
        elif not isinstance(item, int):
            stack += item


FIELDS = """
    language license license_name license_link library_name pipeline_tag tags base_model base_model_relation
    datasets metrics model-index results task dataset type name value config split task_categories
    size_categories pretty_name
""".split()  # noqa: SIM905  as a list it would fill a page
texts = st.text(max_size=10) | st.sampled_from(["mit", "0.5", "", "a: b", "*a", "&a b", "---", "\ud7ff\x85\u2028"])
nodes = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.dates() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | texts, inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)  # the first example imports the parsers
@given(st.dictionaries(st.sampled_from(FIELDS), nodes, max_size=6), st.text(max_size=50))
def test_every_head_that_a_yaml_writer_writes_is_read(head: dict[str, Any], body: str) -> None:
    written = yaml.dump(head, Dumper=NoAliases, allow_unicode=True)

    assert_is_signable(card(written, body))


class NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


@settings(deadline=None)
@given(st.binary(max_size=100) | st.binary(max_size=100).map(lambda data: b"---\n" + data + b"\n---\n" + data))
def test_any_bytes_are_refused_or_a_card_that_can_be_signed(data: bytes) -> None:
    try:
        read = parse_card(data)
    except InvalidData:
        return

    assert_is_signable(read)


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from([*"#*_`[]()<>!&|~-= \n\\\"'ab1", "\n\n", "<h1>", "</h1>", "<!--", "-->", "](", "word "]),
        max_size=60,
    )
)
def test_any_markdown_gives_bounded_plain_text(parts: list[str]) -> None:
    assert_is_signable(card("", "".join(parts)))


def test_importing_the_module_does_not_import_the_parsers() -> None:
    code = "import sys, p2phub.core.modelcard; sys.exit('yaml' in sys.modules or 'markdown_it' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
