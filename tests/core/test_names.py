from __future__ import annotations

import re
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2phub.core import names
from p2phub.core.errors import InvalidName
from p2phub.core.ids import NamespaceId, NodeId
from p2phub.core.names import (
    Address,
    BranchName,
    DomainName,
    HashRef,
    ModelName,
    NameRef,
    VersionName,
    format_endpoint,
    parse_address,
    parse_endpoint,
    parse_reference,
)
from p2phub.core.signing import SigningKey

NODE = NodeId(SigningKey(b"n" * 32).public_key)
NAMESPACE_ID = str(NamespaceId(b"s" * 32))
HASH = "0123456789abcdef" * 4

MODELS = ["a", "bert-fr", "parrot-7b", "Llama-3.1_8B", "0", "b3", "a.b", "x" * 96]
BAD_MODELS = [
    "", "-a", "a-", ".a", "a.", "_a", "a_", "a--b", "a..b", "a.git", "x" * 97, "a b", "a/b/c", "é", "a\n", "a:b:c",
]  # fmt: skip
VERSIONS = ["1.0", "1.2.0", "0.0.1", "2026.01", "1.0.0-rc.1", "1.0.0+build.5", "1.0-rc1+x", "1.0b2", "10.20.30.40"]
BRANCHES = ["main", "production", "v1", "feature/x", "refs/pr/1", "a.b-c_d", "A", "deadbeef", "x" * 128]
HASHES = ["0" * 12, HASH, HASH[:40], "abcdefabcdef"]
BAD_REVISIONS = [
    "1", "12", "1.", ".1", "1..2", "1.0-", "1.0+", "1.0-rc..1", "1.0+a+b", "1.0-rc.", "-main", "/main", "main/", "a//b",
    "a/-b", "a..b", "a/../b", "x" * 129, "0" * 11, "0" * 65, "main\n", "ma in", "é", "1.0\n", "a@b", "a:b",
    "1." + "0" * 63,
]  # fmt: skip
NAMESPACES = ["lab.edu", "me", "a", "a-b", "0", "xn--bcher-kva.example", "a.b.c.d", NAMESPACE_ID, "x" * 63]
BAD_NAMESPACES = [
    "", "Lab.edu", "-a", "a-", ".a", "a.", "a..b", "a_b", "é", "1.2.3.4", "a.1", "a.0x7f", "x" * 64, "x" * 64 + ".com",
    ".".join(["a" * 60] * 5), "lab.edu:443", "a b", "lab.edu\n",
]  # fmt: skip

references = st.builds(
    NameRef,
    namespace=st.none() | st.sampled_from(NAMESPACES),
    model=st.sampled_from(MODELS) | st.from_regex(r"\A[A-Za-z0-9]{1,20}(-[A-Za-z0-9]{1,10}){0,3}\Z"),
    revision=st.none() | st.sampled_from([*VERSIONS, *BRANCHES, *HASHES]),
) | st.builds(HashRef, digest=st.binary(min_size=32, max_size=32))


@given(references)
def test_a_reference_reads_back_from_its_text(reference: names.Reference) -> None:
    assert parse_reference(str(reference)) == reference


@given(references)
def test_a_colon_is_a_synonym_of_the_at_sign(reference: names.Reference) -> None:
    if isinstance(reference, NameRef) and (reference.namespace or reference.model != "b3"):
        assert parse_reference(str(reference).replace("@", ":")) == reference


@given(st.text(max_size=80))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidName:
        return
    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize("model", BAD_MODELS)
def test_it_is_no_model_name(model: str) -> None:
    with pytest.raises(InvalidName):
        names.check_model(model)
    with pytest.raises(InvalidName):
        parse_reference(f"lab.edu/{model}@main")


@pytest.mark.parametrize("revision", BAD_REVISIONS)
def test_it_is_no_revision(revision: str) -> None:
    with pytest.raises(InvalidName):
        names.check_revision(revision)
    with pytest.raises(InvalidName):
        parse_reference(f"lab.edu/model@{revision}")


@pytest.mark.parametrize("namespace", BAD_NAMESPACES)
def test_it_is_no_namespace(namespace: str) -> None:
    with pytest.raises(InvalidName):
        parse_reference(f"{namespace}/model")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("b3:abc", "no content hash"),
        ("b3:" + HASH.upper(), "no content hash"),
        ("b3:" + HASH + "\n", "no content hash"),
        ("https://lab.edu/model", "is an address"),
        ("hf://org/name", "is an address"),
        ("lab.edu/model@", "no revision after '@'"),
        ("lab.edu/model:", "no revision after ':'"),
        ("Lab.edu/model", "'Lab.edu' is no namespace"),
        ("lab.edu/mod el", "no model name"),
        ("lab.edu/model@1", "no revision"),
        ("", "no model name"),
        ("@main", "no model name"),
    ],
)
def test_an_error_says_which_rule_was_broken(text: str, says: str) -> None:
    with pytest.raises(InvalidName, match=re.escape(says)):
        parse_reference(text)


def test_an_address_in_place_of_a_name_gets_a_hint() -> None:
    with pytest.raises(InvalidName) as caught:
        parse_reference("https://lab.edu/model")

    assert caught.value.hint == "names look like NAMESPACE/MODEL@1.0.0"


def test_a_name_without_namespace_is_ones_own() -> None:
    assert parse_reference("model@1.0") == NameRef(None, "model", "1.0")
    assert parse_reference("model:feature/x") == NameRef(None, "model", "feature/x")
    assert parse_reference("feature/x") == NameRef("feature", "x", None)


@given(
    st.sampled_from([*VERSIONS, *BRANCHES, *HASHES, *BAD_REVISIONS]) | st.text("0123456789abcdefxyz./-+_", max_size=70)
)
def test_a_revision_is_of_one_kind_only(text: str) -> None:
    kinds = [names.is_version(text), names.is_branch(text), names.is_hash_prefix(text)]

    assert sum(kinds) <= 1


@pytest.mark.parametrize(
    ("kind", "texts"), [(names.is_version, VERSIONS), (names.is_branch, BRANCHES), (names.is_hash_prefix, HASHES)]
)
def test_revisions_are_told_apart(kind, texts: list[str]) -> None:  # type: ignore[no-untyped-def]
    for text in texts:
        assert kind(text)
        names.check_revision(text)


def accepts(type_: object, text: str) -> bool:
    try:
        msgspec.convert(text, type=type_)
    except msgspec.ValidationError:
        return False
    return True


def passes(check, text: str) -> bool:  # type: ignore[no-untyped-def]
    try:
        check(text)
    except InvalidName:
        return False
    return True


odd_text = (
    st.text(max_size=20)
    | st.text("abAB019.-_/+\n:@", max_size=130)
    | st.sampled_from([*MODELS, *BAD_MODELS, *VERSIONS, *BRANCHES, *HASHES, *BAD_REVISIONS])
)


@given(odd_text)
def test_records_hold_what_can_be_asked_for_and_nothing_else(text: str) -> None:
    assert accepts(ModelName, text) == passes(names.check_model, text)
    assert accepts(BranchName, text) == names.is_branch(text)
    assert accepts(VersionName, text) == names.is_version(text)


@pytest.mark.parametrize("domain", ["lab.edu", "xn--bcher-kva.example", "a.b.c.d", "1.2.3.de"])
def test_it_is_a_domain(domain: str) -> None:
    assert accepts(DomainName, domain)


@pytest.mark.parametrize("domain", [*BAD_NAMESPACES, "localhost", NAMESPACE_ID])
def test_it_is_no_domain(domain: str) -> None:
    assert not accepts(DomainName, domain)


@pytest.mark.parametrize("text", ["1.0" + "-" * 5000, "1" + ".1" * 5000 + "!", "a/" * 5000, "." * 5000])
def test_no_text_makes_the_matcher_try_for_long(text: str) -> None:
    begin = time.process_time()

    for type_ in (ModelName, BranchName, VersionName, DomainName):
        assert not accepts(type_, text)
    assert not passes(parse_reference, f"{text}/{text}@{text}")

    # Some milliseconds in fact; one that tries all ways takes longer than the universe.
    assert time.process_time() - begin < 5


def test_a_namespace_id_is_told_from_a_petname() -> None:
    assert names.is_namespace_id(NAMESPACE_ID)
    assert not names.is_namespace_id("me")
    assert not names.is_namespace_id(NAMESPACE_ID.upper())
    assert not names.is_namespace_id("a" * 51 + "b")


ENDPOINTS = {
    "lab.edu:443": ("lab.edu", 443),
    "127.0.0.1:0": ("127.0.0.1", 0),
    "[::1]:65535": ("::1", 65535),
    "[2001:db8::1]:7777": ("2001:db8::1", 7777),
    "[::ffff:1.2.3.4]:1": ("::ffff:1.2.3.4", 1),
    "node_1:80": ("node_1", 80),
}


@pytest.mark.parametrize("text", ENDPOINTS)
def test_an_endpoint_reads_back_from_its_text(text: str) -> None:
    assert parse_endpoint(text) == ENDPOINTS[text]
    assert format_endpoint(*ENDPOINTS[text]) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "lab.edu", ":80", "lab.edu:", "lab.edu:65536", "lab.edu:-1", "lab.edu:080", "lab.edu:1e3", "lab.edu:80 ",
        "lab.edu:80\n", "::1:80", "[::1]", "[::1]80", "[]:80", "[....]:80", "[1.2.3.4]:80", "[fe80::1%eth0]:80",
        "a b:80", "lab.edu/:80", "user@lab.edu:80", "é.edu:80", "lab.edu:٣", "x" * 254 + ":80",
    ],
)  # fmt: skip
def test_it_is_no_endpoint(text: str) -> None:
    with pytest.raises(InvalidName, match="no HOST:PORT"):
        parse_endpoint(text)


@pytest.mark.parametrize("endpoint", ENDPOINTS.values())
def test_an_address_reads_back_from_its_text(endpoint: tuple[str, int]) -> None:
    address = Address(NODE, *endpoint)

    assert parse_address(str(address)) == address
    assert str(address).startswith(f"p2phub://{NODE}@")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "p2phub://",
        f"{NODE}@lab.edu:80",
        f"http://{NODE}@lab.edu:80",
        "p2phub://lab.edu:80",
        "p2phub://node@lab.edu:80",
        f"p2phub://{NODE}@lab.edu",
        f"p2phub://{NODE}@lab.edu:80/",
        f"p2phub://{NODE}@{NODE}@lab.edu:80",
        f"p2phub://{str(NODE).upper()}@lab.edu:80",
    ],
)
def test_it_is_no_address(text: str) -> None:
    with pytest.raises(InvalidName):
        parse_address(text)


def test_an_address_whose_node_anybody_could_answer_for_is_refused() -> None:
    with pytest.raises(InvalidName, match="small order"):
        parse_address(f"p2phub://{NodeId(bytes(32))}@lab.edu:80")
