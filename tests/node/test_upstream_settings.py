"""Which hub is asked, and which token goes to it."""

from __future__ import annotations

import pytest

from p2phub.core.errors import InvalidName
from p2phub.node.settings import Settings

HUB = "https://hub.example"
DOOR = "http://127.0.0.1:8628"


@pytest.mark.parametrize(
    ("environment", "token"),
    [
        ({}, None),
        ({"HF_TOKEN": "hf_x"}, "hf_x"),
        ({"HF_TOKEN": "hf_x", "P2PHUB_UPSTREAM": HUB}, "hf_x"),
        ({"HF_TOKEN": "hf_x", "P2PHUB_UPSTREAM": HUB, "HF_ENDPOINT": f"{HUB}/"}, "hf_x"),
        # What `p2phub env` sets: the token of the node's own door.
        ({"HF_TOKEN": "hf_x", "P2PHUB_UPSTREAM": HUB, "HF_ENDPOINT": DOOR}, None),
        ({"HF_TOKEN": "hf_x", "HF_ENDPOINT": DOOR}, None),
        ({"HF_TOKEN": "hf_x", "P2PHUB_UPSTREAM_TOKEN": " own\n"}, "own"),
        ({"HF_TOKEN": "two words"}, None),
    ],
)
def test_the_token_is_the_one_for_the_upstream(environment, token, tmp_path):
    settings = Settings.from_environment({"P2PHUB_HOME": str(tmp_path), **environment})

    assert settings.upstream_token == token
    assert token is None or token not in repr(settings)


def test_a_file_can_hold_it(tmp_path):
    (tmp_path / "token").write_text("hf_x\n")
    environment = {"P2PHUB_HOME": str(tmp_path), "P2PHUB_UPSTREAM_TOKEN_FILE": str(tmp_path / "token")}

    assert Settings.from_environment(environment).upstream_token == "hf_x"
    (tmp_path / "token").write_text("")
    with pytest.raises(InvalidName, match="holds no token"):
        Settings.from_environment(environment)


def test_a_cache_has_the_names_of_its_hub(tmp_path):
    environment = {"P2PHUB_HOME": str(tmp_path), "P2PHUB_UPSTREAM_HUB": "huggingface.co"}

    assert Settings.from_environment(environment).upstream_hub == "huggingface.co"
    with pytest.raises(InvalidName, match="is no HOST"):
        Settings.from_environment(environment | {"P2PHUB_UPSTREAM_HUB": "https://huggingface.co"})


def test_what_is_no_url_of_a_hub_is_refused_by_every_command(tmp_path):
    environment = {"P2PHUB_HOME": str(tmp_path)}

    assert Settings.from_environment(environment | {"P2PHUB_UPSTREAM": HUB}).upstream == HUB
    with pytest.raises(InvalidName, match="a URL has the form"):
        Settings.from_environment(environment | {"P2PHUB_UPSTREAM": "nonsense"})
