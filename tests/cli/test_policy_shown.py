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
