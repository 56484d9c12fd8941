"""Sealed files open at their place and nowhere else, and keys for whom they were wrapped."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from hypothesis import given
from hypothesis import strategies as st

from p2phub.core import sealing
from p2phub.core.errors import InvalidData
from p2phub.core.ids import ContentId
from p2phub.core.sealing import CHUNK_SIZE, TAG_SIZE, RepositoryKey, opened_size, sealed_size, unwrap, wrap
from p2phub.testing import hpke, values
from p2phub.testing.vectors.seals import seal_all, sealed_repository

KEY = RepositoryKey(bytes(range(32)))
ROOT = ContentId(bytes(32))
ALICE, BOB = values.identity().namespace, values.identity("bob").namespace


def sealed_chunks(data: bytes, file_id: bytes) -> list[bytes]:
    whole = seal_all(KEY, file_id, data)
    return [whole[at : at + CHUNK_SIZE + TAG_SIZE] for at in range(0, len(whole), CHUNK_SIZE + TAG_SIZE)]


@pytest.mark.parametrize("size", [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 2 * CHUNK_SIZE])
def test_what_was_sealed_opens_to_the_same_bytes(size: int) -> None:
    data, file_id = values.content("data", size), KEY.file_id("a", ROOT)
    chunks = sealed_chunks(data, file_id)
    file = KEY.file(file_id, size)

    assert b"".join(file.open(index, chunk) for index, chunk in enumerate(chunks)) == data
    assert len(chunks) == file.count
    assert sum(map(len, chunks)) == sealed_size(size)
    assert opened_size(sealed_size(size)) == size
    assert all(len(chunk) <= 1024 * 1024 for chunk in chunks)


@given(st.integers(0, 2**41))
def test_the_size_of_a_sealed_file_tells_that_of_the_file(size: int) -> None:
    assert opened_size(sealed_size(size)) == size


@pytest.mark.parametrize("size", [0, 15, CHUNK_SIZE + TAG_SIZE + 1, CHUNK_SIZE + 2 * TAG_SIZE - 1])
def test_a_size_that_no_sealed_file_has_is_refused(size: int) -> None:
    with pytest.raises(InvalidData):
        opened_size(size)


def test_a_chunk_opens_at_its_place_alone() -> None:
    data = values.content("data", 3 * CHUNK_SIZE)
    file_id = KEY.file_id("a", ROOT)
    first, second, third = sealed_chunks(data, file_id)
    file = KEY.file(file_id, len(data))

    for index, chunk in ((0, second), (1, first), (2, second), (1, third)):  # reordered, repeated
        with pytest.raises(InvalidData):
            file.open(index, chunk)
    with pytest.raises(InvalidData):  # beyond the end
        file.open(3, third)
    with pytest.raises(InvalidData):
        file.open(-1, third)


def test_a_file_that_lost_its_end_does_not_open() -> None:
    file_id = KEY.file_id("a", ROOT)
    first, _, _ = sealed_chunks(values.content("data", 3 * CHUNK_SIZE), file_id)

    with pytest.raises(InvalidData):
        KEY.file(file_id, CHUNK_SIZE).open(0, first)


def test_a_chunk_of_another_file_or_repository_does_not_open() -> None:
    (chunk,) = sealed_chunks(b"data", KEY.file_id("a", ROOT))

    with pytest.raises(InvalidData):
        KEY.file(KEY.file_id("b", ROOT), 4).open(0, chunk)
    other = RepositoryKey(bytes(32))
    with pytest.raises(InvalidData):
        other.file(KEY.file_id("a", ROOT), 4).open(0, chunk)


@given(st.integers(0, 19), st.integers(0, 7))
def test_every_changed_bit_is_noticed(place: int, bit: int) -> None:
    file_id = KEY.file_id("a", ROOT)
    (chunk,) = sealed_chunks(b"data", file_id)
    changed = bytearray(chunk)
    changed[place] ^= 1 << bit

    with pytest.raises(InvalidData):
        KEY.file(file_id, 4).open(0, bytes(changed))


def test_equal_files_are_sealed_alike_at_one_path_alone() -> None:
    one, again, elsewhere = KEY.file_id("a", ROOT), KEY.file_id("a", ROOT), KEY.file_id("b", ROOT)
    other = KEY.file_id("a", ContentId(b"\1" * 32))

    assert one == again
    assert len({one, elsewhere, other}) == 3
    assert sealed_chunks(b"data", one) == sealed_chunks(b"data", again) != sealed_chunks(b"data", elsewhere)


def test_the_manifest_of_a_sealed_repository_tells_nothing_of_its_files() -> None:
    _, outer, sealed, _ = sealed_repository({"secret-name.txt": b"secret words", "b": b"b"}, KEY)
    from p2phub.core import manifest as manifests

    seen = manifests.encode(outer) + b"".join(sealed.values())
    assert b"secret" not in seen
    assert KEY.secret not in seen


def test_a_key_opens_for_the_recipient_it_was_wrapped_for() -> None:
    private = X25519PrivateKey.generate()
    wrapped = wrap(KEY, ALICE, "parrot", BOB, private.public_key().public_bytes_raw())

    assert unwrap(wrapped, private, KEY.identifier, ALICE, "parrot").secret == KEY.secret
    for key, identifier, publisher, model in (
        (X25519PrivateKey.generate(), KEY.identifier, ALICE, "parrot"),
        (private, bytes(32), ALICE, "parrot"),
        (private, KEY.identifier, BOB, "parrot"),
        (private, KEY.identifier, ALICE, "finch"),
    ):
        with pytest.raises(InvalidData):
            unwrap(wrapped, key, identifier, publisher, model)


def test_a_wrapped_key_that_is_another_than_was_named_is_refused() -> None:
    private = X25519PrivateKey.generate()
    other = RepositoryKey(bytes(32))
    info = sealing._wrap_info(KEY.identifier, ALICE, "parrot", BOB)
    public = private.public_key().public_bytes_raw()
    lie = sealing.WrappedKey(BOB, public, hpke.seal(other.secret, public, os.urandom(32), info=info))

    with pytest.raises(InvalidData, match="not the key"):
        unwrap(lie, private, KEY.identifier, ALICE, "parrot")


def test_a_key_never_shows_in_text() -> None:
    for text in (repr(KEY), str(KEY), repr(vars(KEY.file(bytes(32), 1)))):
        assert KEY.secret.hex() not in text
        assert repr(KEY.secret)[2:-1] not in text


# RFC 9180, A.1.1 and A.2.1: base mode, X25519, HKDF-SHA256; the first message.
RFC_9180 = {
    "AES-128-GCM": (
        "4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8",
        "52c4a758a802cd8b936eceea314432798d5baf2d7e9235dc084ab1b9cfa2f736",
        "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431"
        "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a",
    ),
    "ChaCha20Poly1305": (
        "8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb",
        "f4ec9b33b792c372c1d2c2063507b684ef925b8c75a42dbcbf57d63ccd381600",
        "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a"
        "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28",
    ),
}
INFO, AAD = b"Ode on a Grecian Urn", b"Count-0"
PLAINTEXT = b"Beauty is truth, truth beauty"


@pytest.mark.parametrize("aead", sorted(RFC_9180))
def test_hpke_gives_the_published_vectors(aead: str) -> None:
    recipient, sender, expected = RFC_9180[aead]
    public = X25519PrivateKey.from_private_bytes(bytes.fromhex(recipient)).public_key().public_bytes_raw()

    made = hpke.seal(PLAINTEXT, public, bytes.fromhex(sender), info=INFO, aad=AAD, aead=aead)

    assert made.hex() == expected


def test_the_library_and_the_rfc_agree_on_the_suite_in_use() -> None:
    private = X25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)

    assert suite.decrypt(hpke.seal(PLAINTEXT, public, os.urandom(32), info=INFO), private, info=INFO) == PLAINTEXT
