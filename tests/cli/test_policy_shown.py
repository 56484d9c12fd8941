"""The policy file as it is shown: whatever stands in it comes back."""

from __future__ import annotations

import tomllib

from p2phub.testing.processes import Home

POLICY = """
[licences]
deny = ["CC-BY-NC-4.0"]

[[attested]]
claim = "scan"
by = ["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]

[[attested]]
claim = "review"
by = ["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "baaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]
need = 2
"""


def test_what_is_shown_can_be_the_policy_file(tmp_path):
    home = Home(tmp_path / "home")
    home.folder.mkdir()
    (home.folder / "policy.toml").write_text(POLICY)

    shown = home.run("policy", "show").out

    assert tomllib.loads(shown)["licences"]["deny"] == ["CC-BY-NC-4.0"]
    assert [each["need"] for each in tomllib.loads(shown)["attested"]] == [1, 2]
    (home.folder / "policy.toml").write_text(shown)
    assert home.run("policy", "show").out == shown


def test_who_mistypes_a_path_reads_that_nothing_is_there(tmp_path):
    home = Home(tmp_path / "home")

    for reference in ("models/nothing.pt", "./nothing.pt"):
        outcome = home.call("policy", "check", reference, code=None)

        assert outcome.code in (2, 3)
        assert f"a file or folder {reference} is not here either" in outcome.err


def test_status_says_that_a_policy_file_cannot_be_understood_and_what_to_do(tmp_path):
    home = Home(tmp_path / "home")
    home.folder.mkdir()
    (home.folder / "policy.toml").write_text("[licence]\n")

    with home.node():
        said = home.call("status").out

    assert "nothing is given to anybody" in said
    assert "licence is no rule; did you mean licences?" in said
