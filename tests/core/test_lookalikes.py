from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2phub.core.lookalikes import alike, is_overshadowed, shown, skeleton, warnings


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("1ab.example", "looks like"),
        ("Iab.example", "looks like"),
        ("lab-example", "looks like"),
        ("lab.exarnple", "looks like"),
        ("xn--ab-6kc.example", None),  # a Cyrillic letter that no Latin one looks like
        ("xn--lb-7kc.example", "looks like"),  # with a Cyrillic a
        ("lab.exampl", "differs in one letter from"),
        ("lab.examplee", "differs in one letter from"),
        ("lab.exampel", "differs in one letter from"),
        ("lab.exbmple", "differs in one letter from"),
        ("lab.example.evil.com", "begins like"),
        ("lab.example-login.com", "begins like"),
        ("owl.example", None),
        ("lab.example", None),
    ],
)
def test_names_that_a_person_may_confuse_are_found(name: str, how: str | None) -> None:
    assert alike(name, "lab.example") == how


def test_another_ending_of_the_same_name_is_told_of() -> None:
    assert alike("institute.com", "institute.edu") == "has another ending than"
    assert alike("lab.com", "lab.edu") is None  # short words are everybody's


def test_short_names_differ_by_chance() -> None:
    assert alike("bob", "rob") is None
    assert alike("b0b", "bob") == "looks like"


def test_letters_of_other_scripts_are_shown() -> None:
    assert shown("xn--bcher-kva.example") == "bücher.example"
    assert warnings("xn--bcher-kva.example", []) == [
        "xn--bcher-kva.example has letters of other scripts: it is shown as 'bücher.example' elsewhere"
    ]
    assert shown("xn--\N{SNOWMAN}") == shown("xn--\N{SNOWMAN}")


@given(st.text(alphabet="abcl01-.", max_size=12))
def test_a_skeleton_looks_like_itself(name: str) -> None:
    assert skeleton(skeleton(name)) == skeleton(name)


@given(st.text(alphabet="abo0.", min_size=5, max_size=8), st.integers(0, 7), st.sampled_from("abo0."))
def test_what_one_edit_makes_of_a_name_is_alike(name: str, place: int, letter: str) -> None:
    place %= len(name)
    edits = {
        name[:place] + letter + name[place + 1 :],
        name[:place] + letter + name[place:],
        name[:place] + name[place + 1 : place + 2] + name[place] + name[place + 2 :],
    }

    for edited in edits - {name}:
        assert alike(edited, name) is not None
        assert alike(name, edited) is not None


def test_only_far_more_holders_overshadow() -> None:
    assert is_overshadowed(0, 10)
    assert is_overshadowed(3, 30)
    assert not is_overshadowed(3, 29)
    assert not is_overshadowed(0, 9)
