from __future__ import annotations

from pathlib import Path

import pytest

from p2phub.core.errors import NotFound, StoreError, WrongPassphrase
from p2phub.core.joining import Secrets
from p2phub.core.keybundle import KeyBundle
from p2phub.store.agent import AgentKey
from p2phub.store.keyring import (
    companions,
    keep_agent_key,
    keep_secrets,
    keep_signing_key,
    load_request_key,
    new_companion,
    new_recipient,
    new_signing_key,
    read_bundle,
    recipients,
    replace_bundle,
    signers,
    write_bundle,
)
from p2phub.store.keys import create_key, load_or_create_companion, load_or_create_recipient
from p2phub.testing import values

KEY, OTHER = values.key("publisher"), values.key("other")
SECRETS = Secrets(values.companion("publisher").secret, (values.recipient("publisher").secret,))


def never(path: Path) -> str:
    raise AssertionError(f"asked for the passphrase of {path}")


def test_every_key_of_the_folder_signs_whatever_its_file_is_called(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    assert signers(keys) == {}
    first = create_key(keys / "publish.key")
    second = new_signing_key(keys)
    keep_signing_key(keys, KEY)
    keep_signing_key(keys, KEY)
    (keys / "notes.txt").write_text("these are mine\n")

    assert set(signers(keys)) == {first.public_key, second.public_key, KEY.public_key}


def test_keys_that_sign_for_no_publisher_are_not_among_them(tmp_path: Path) -> None:
    for name in ("node.key", "witness.key"):
        create_key(tmp_path / name)
    load_request_key(tmp_path)
    load_or_create_companion(tmp_path)
    load_or_create_recipient(tmp_path)

    assert signers(tmp_path) == {}
    # What answers are encrypted to is no key that others encrypt to.
    assert len(recipients(tmp_path)) == 1


def test_a_key_of_an_agent_signs_there(tmp_path: Path) -> None:
    keep_agent_key(tmp_path, KEY.public_key)
    keep_agent_key(tmp_path, KEY.public_key)
    (signer,) = signers(tmp_path).values()

    assert isinstance(signer, AgentKey)
    assert signer.public_key == KEY.public_key


@pytest.mark.parametrize("text", ["", "p2phub-key-1 xyz", "p2phub-key-1 " + "00" * 31, "p2phub-agent-1 me", "hello"])
def test_a_damaged_key_is_named_and_not_shown(tmp_path: Path, text: str) -> None:
    create_key(tmp_path / "publish.key")
    damaged = tmp_path / "old.key"
    damaged.write_text(text)
    damaged.chmod(0o600)
    with pytest.raises(StoreError, match=r"old\.key is no key file") as caught:
        signers(tmp_path)

    assert caught.value.path == str(damaged)


def test_a_key_that_others_may_read_keeps_all_from_signing(tmp_path: Path) -> None:
    create_key(tmp_path / "publish.key")
    new_signing_key(tmp_path)
    (tmp_path / "publish.key").chmod(0o644)
    with pytest.raises(StoreError, match="others may read"):
        signers(tmp_path)


def test_new_keys_for_other_purposes_stand_beside_the_old_ones(tmp_path: Path) -> None:
    old = load_or_create_companion(tmp_path), load_or_create_recipient(tmp_path)
    new = new_companion(tmp_path), new_recipient(tmp_path)
    keep_secrets(tmp_path, SECRETS)
    keep_secrets(tmp_path, SECRETS)

    assert {key.secret for key in companions(tmp_path)} == {old[0].secret, new[0].secret, SECRETS.companion}
    assert {key.secret for key in recipients(tmp_path)} == {old[1].secret, new[1].secret, *SECRETS.recipients}
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.glob("*.key"))


def test_keys_in_a_file_are_read_in_each_form(tmp_path: Path) -> None:
    bundle = KeyBundle(1, (KEY.seed,), values.whole_identity().chain, SECRETS)
    line = create_key(tmp_path / "line.key")
    write_bundle(tmp_path / "plain.keys", bundle, None)
    write_bundle(tmp_path / "locked.keys", bundle, "correct horse")

    assert read_bundle(tmp_path / "line.key", never).seeds == (line.seed,)
    assert read_bundle(tmp_path / "plain.keys", never) == bundle
    assert read_bundle(tmp_path / "locked.keys", lambda _: "correct horse") == bundle
    assert KEY.seed.hex() not in (tmp_path / "locked.keys").read_text()
    with pytest.raises(WrongPassphrase):
        read_bundle(tmp_path / "locked.keys", lambda _: "another horse")


def test_a_file_with_keys_is_never_overwritten_by_accident(tmp_path: Path) -> None:
    path = tmp_path / "some.keys"
    write_bundle(path, KeyBundle(1, (KEY.seed,)), None)
    with pytest.raises(StoreError, match="already"):
        write_bundle(path, KeyBundle(1, (OTHER.seed,)), None)
    assert read_bundle(path, never).seeds == (KEY.seed,)
    replace_bundle(path, KeyBundle(1, (OTHER.seed,)), None)

    assert read_bundle(path, never).seeds == (OTHER.seed,)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xfe", b"p2phub-keys-1:AAAA", b"p2phub-locked-1:AAAA", b"p2phub-key-1 00", b"x" * 10**6],
)
def test_what_holds_no_keys_is_said_and_not_shown(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "some.keys"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(StoreError, match="is no key file") as caught:
        read_bundle(path, lambda _: "correct horse")
    assert caught.value.path == str(path)
    path.chmod(0o640)
    # What is no key file at all need not be locked away.
    with pytest.raises(StoreError, match="others may read" if data.startswith(b"p2phub-") else "is no key file"):
        read_bundle(path, never)
    path.unlink()
    with pytest.raises(NotFound):
        read_bundle(path, never)
