from __future__ import annotations

from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2phub.core.errors import InvalidData, InvalidName
from p2phub.core.origins import URL_SIZE_MAX, check_given, check_published, parse_url, url_of_file, url_of_path
from p2phub.core.paths import check_path

texts = st.text(max_size=40) | st.text("htps:/@[]?#%{path}a1. \\", max_size=40)


def is_path(text: str) -> bool:
    try:
        check_path(text)
    except InvalidData:
        return False
    return True


@given(st.text(min_size=1, max_size=30).filter(is_path))
def test_the_path_of_a_file_comes_back_from_its_url(path: str) -> None:
    for template in ("https://a.example/x/{path}", "https://a.example/x", "https://a.example/x/"):
        split = urlsplit(str(url_of_path(template, path)))
        assert (split.scheme, split.netloc) == ("https", "a.example")
        assert unquote(split.path) == f"/x/{path}"
        assert not split.query
        assert not split.fragment


@given(texts)
def test_any_text_is_a_url_that_others_read_alike_or_refused(text: str) -> None:
    try:
        url = parse_url(text)
    except InvalidName:
        return
    # Taken apart and put together it is the same URL.
    assert parse_url(str(url)) == url
    assert str(url).isascii()
    assert urlsplit(str(url)).hostname == url.host
    assert (urlsplit(str(url)).port or {"http": 80, "https": 443}[url.scheme]) == url.port


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("models.example", "form"),
        ("ftp://models.example/", "form"),
        ("https://models.example/#a", "#"),
        ("https://models.example/a b", "percent-encoded"),
        ("https://models.example/\N{PARROT}", "percent-encoded"),
        ("https://models.example/%zz", "two hex digits"),
        ("https://models.example/%", "two hex digits"),
        ("https://a@b@models.example/", "second @"),
        ("https://models.example:0/", "HOST"),
        ("https://models.example:65536/", "HOST"),
        ("https:///x", "HOST"),
        ("https://[::x]/", "HOST"),
        ("https://[1::2::3]/", "IPv6"),
        ("https://models.example/{path}{path}", "more than once"),
        ("https://{path}/x", "in its host"),
        ("https://{path}:x@models.example/x", "in its host"),
        ("https://models.example/{other}", "percent-encoded"),
        ("https://models.example/%{path}41", "two hex digits"),
        ("https://@models.example", "no user"),
        ("https://models.example/" + "a" * URL_SIZE_MAX, f"at most {URL_SIZE_MAX}"),
    ],
)
def test_what_is_no_url_is_refused_and_says_why(text: str, why: str) -> None:
    with pytest.raises(InvalidName, match=why) as refused:
        check_given(text)
    # It may hold a secret.
    assert text not in str(refused.value)
    with pytest.raises(InvalidData, match=why):
        check_published(text)


def test_a_user_may_be_given_and_not_published() -> None:
    check_given("https://me:secret@models.example/{path}")

    with pytest.raises(InvalidData, match="everybody can read it"):
        check_published("https://me:secret@models.example/{path}")


def test_a_query_needs_a_place_for_the_path() -> None:
    check_given("https://models.example/x?key=1")

    assert str(url_of_file("https://models.example/x?key=1")) == "https://models.example/x?key=1"
    with pytest.raises(InvalidName, match="where does the path go"):
        url_of_path("https://models.example/x?key=1", "a")
    with pytest.raises(InvalidData, match="query"):
        check_published("https://models.example/x?key=1")


def test_a_single_file_has_no_path() -> None:
    with pytest.raises(InvalidName, match="has no path") as failure:
        url_of_file("https://models.example/{path}")

    assert "the URL of the file itself, or name its repository" in (failure.value.hint or "")


def test_what_is_shown_of_a_url_is_host_and_port() -> None:
    assert parse_url("https://me:secret@Models.example:443/x?key=1").endpoint == "models.example"
    assert parse_url("http://Models.example:443/x").endpoint == "models.example:443"
    assert parse_url("https://[2001:DB8::1]/x").endpoint == "[2001:db8::1]"


def test_a_secret_is_for_one_scheme_host_and_port() -> None:
    url = parse_url("https://models.example/x")

    assert url.is_same_server(parse_url("https://Models.example:443/y"))
    assert not url.is_same_server(parse_url("http://models.example:443/x"))
    assert not url.is_same_server(parse_url("https://models.example:8443/x"))
    assert not url.is_same_server(parse_url("https://a.models.example/x"))
