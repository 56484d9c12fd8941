"""Keys that got into a folder by accident are found, and what only looks like them is not."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from p2phub.core.armor import armor
from p2phub.store import leaks
from p2phub.store.leaks import Leak, find_leak, leak_in

OWN = [
    "p2phub-key-1 " + "0f" * 32,
    "p2phub-companion-1 " + "0f" * 32 + "\n",
    armor("keys", bytes(100)),
    armor("locked", bytes(100)),
]
RSA = rsa.generate_private_key(65537, 2048)
KEYS = [RSA, ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()]
PEM = [
    *(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode() for key in KEYS),
    *(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode() for key in KEYS),
    RSA.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"x")).decode(),
]
PLACES = {
    "alone": lambda key: key,
    "in a text": lambda key: f"# Notes\n\nmine is\n{key}\nand so on",
    "in JSON": lambda key: json.dumps({"a": 1, "key": key}, indent=1),
    ".env": lambda key: 'TOKEN=1\nKEY="' + key.replace("\n", "\\n") + '"\n',
    "with Windows' line ends": lambda key: key.replace("\n", "\r\n"),
}
HARMLESS = [
    "",
    "keys begin with p2phub-key-1 and 64 hex digits, or with p2phub-keys-1: in a bundle, as the specification says it",
    "p2phub-key-1 " + "0f" * 31,
    "p2phub-agent-1 " + "a" * 52,
    "-----BEGIN PRIVATE KEY-----\nMIIEvQ...\n-----END PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\nYOUR KEY HERE\n-----END PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\n" + "A" * 64,
    "-----BEGIN PRIVATE KEY-----" * 2000,
    json.dumps({"model": {"vocab": {"-----BEGIN": 1, "ĠPRIVATE": 2, "ĠKEY": 3, "-----": 4, "PRIVATE KEY-----": 5}}}),
    RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
    armor("request", bytes(100)),
    armor("answer", bytes(100)),
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("number", range(len(OWN) + len(PEM)))
def test_a_key_is_found_wherever_it_stands_in_a_text(place: str, number: int) -> None:
    key = [*OWN, *PEM][number]

    assert leak_in(PLACES[place](key).encode()) == ("p2phub" if key in OWN else "pem")


@pytest.mark.parametrize("text", HARMLESS, ids=lambda text: text[:40])
def test_what_is_no_key_is_none(text: str) -> None:
    assert leak_in(text.encode()) is None


def archive(path: Path, members: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in members.items():
                file.writestr(name, data)
        return path
    mode = {".tgz": "w:gz", ".gz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz", ".tar": "w"}[path.suffix]
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


NAMES = ["a.zip", "a.tar", "a.tgz", "a.tar.gz", "a.tar.bz2", "a.tar.xz"]


@pytest.mark.parametrize("name", NAMES)
def test_a_key_is_found_in_an_archive(name: str, tmp_path: Path) -> None:
    large = b"\0" * (leaks.TEXT_SIZE_MAX + 1)
    path = archive(tmp_path / name, {"large": large, "home/keys/mine.key": OWN[0].encode(), "b": b"b"})

    assert find_leak(path, path.name) == Leak("p2phub", "home/keys/mine.key")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "a.tar"])  # which is a text with the key in it
def test_nothing_is_unpacked_without_end(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {f"{number}": b"x" * 1000 for number in range(50)} | {"mine.key": OWN[0].encode()}
    path = archive(tmp_path / name, members)
    for limit, value in (("UNPACKED_SIZE_MAX", 20_000), ("MEMBERS_MAX", 50), ("ARCHIVE_SIZE_MAX", 100)):
        with monkeypatch.context() as patch:
            assert find_leak(path, path.name) is not None
            patch.setattr(leaks, limit, value)
            assert find_leak(path, path.name) is None


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_archive_is_none(name: str, tmp_path: Path) -> None:
    path = archive(tmp_path / name, {"a": b"a" * 5000, "b": b"b" * 5000})
    data = path.read_bytes()
    for damaged in (b"", data[: len(data) // 2], data[:20] + b"\xff" * 40 + data[60:], b"noise" * 100):
        path.write_bytes(damaged)

        assert find_leak(path, path.name) is None
