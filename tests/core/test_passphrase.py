from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from msgspec.structs import replace

from p2phub.core import encoding
from p2phub.core.errors import InvalidData, InvalidEncoding, WrongPassphrase
from p2phub.core.passphrase import COST, COST_MAX, Locked, lock, unlock
from p2phub.testing import values

DATA = b"what is to be kept"
SALT = values.content("salt", 16)
CHEAP = 10  # log2 of N, for tests


def locked(passphrase: str = "correct horse", data: bytes = DATA) -> bytes:
    return lock(data, passphrase, salt=SALT, cost=CHEAP)


def opened(data: bytes) -> Locked:
    return encoding.decode(data, Locked, size_max=2**20)


def test_who_knows_the_passphrase_opens_it() -> None:
    assert unlock(locked(), "correct horse") == DATA
    assert unlock(locked(data=b""), "correct horse") == b""
    assert DATA not in locked()


def test_it_is_locked_as_the_spec_says() -> None:
    header = opened(locked())
    key = Scrypt(SALT, 32, 2**CHEAP, 8, 1).derive(b"correct horse")

    assert AESGCM(key).decrypt(bytes(12), header.box, encoding.encode(replace(header, box=b""))) == DATA
    # A copy that was stolen is to cost much to try.
    assert COST >= 17


@pytest.mark.parametrize("wrong", ["", "correct hors", "Correct horse", "correct horse "])
def test_another_passphrase_does_not(wrong: str) -> None:
    with pytest.raises(WrongPassphrase):
        unlock(locked(), wrong)


def test_a_passphrase_is_the_same_on_every_keyboard() -> None:
    composed, decomposed = "clé du coffre", "cle\N{COMBINING ACUTE ACCENT} du coffre"

    assert unlock(locked(composed), decomposed) == DATA


def test_a_changed_header_opens_nothing() -> None:
    header = opened(locked())
    for changed in (
        replace(header, cost=CHEAP + 1),
        replace(header, salt=bytes(16)),
        replace(header, box=header.box[:-1] + bytes([header.box[-1] ^ 1])),
        replace(header, box=header.box[:16]),
    ):
        with pytest.raises(WrongPassphrase):
            unlock(encoding.encode(changed), "correct horse")


@pytest.mark.parametrize("cost", [0, 9, COST_MAX + 1, 63])
def test_a_file_cannot_ask_for_more_memory_than_there_is(cost: int) -> None:
    with pytest.raises(InvalidEncoding):
        unlock(encoding.encode(replace(opened(locked()), cost=cost)), "correct horse")


def test_noise_is_refused() -> None:
    for noise in (b"", b"\0", locked()[:-1], locked() + b"\0", DATA):
        with pytest.raises(InvalidData):
            unlock(noise, "correct horse")
