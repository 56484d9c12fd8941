"""The public tools take our signatures and lists, and we take their signatures."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from p2phub.testing.processes import Home
from p2phub.testing.samples import write_sample_model

VERIFICATION_FAILED = 4  # exit code


def tool(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the public `model_signing`."""
    program = Path(sys.executable).with_name("model_signing")
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)


@dataclass(frozen=True)
class Signed:
    """A model in a folder, and its signature and key beside it."""

    home: Home
    folder: Path
    bundle: Path
    key: Path


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    """Publish a model, fetch it, and sign it."""
    home = Home(tmp_path / "home")
    write_sample_model(tmp_path / "model")
    home.run("id", "new")
    home.run("publish", tmp_path / "model", "parrot@1.0")
    home.run("fetch", "parrot", "--to", tmp_path / "placed", "--link", "copy")
    found = Signed(home, tmp_path / "placed", tmp_path / "model.sig", tmp_path / "key.pem")
    home.run("export", "parrot", "--oms", "--to", found.bundle, "--key-to", found.key)
    return found


def spoil(folder: Path) -> None:
    """Change one bit of the weights."""
    path = next(folder.glob("*.safetensors"))
    path.chmod(0o644)
    with open(path, "r+b") as file:
        file.seek(-1, io.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, io.SEEK_END)
        file.write(bytes([last ^ 1]))


def test_the_public_tool_takes_our_signature_and_refuses_other_bytes(signed):
    command = ("verify", "key", signed.folder, "--signature", signed.bundle, "--public_key", signed.key)

    assert tool(*command).returncode == 0
    spoil(signed.folder)
    refused = tool(*command)

    assert refused.returncode != 0
    assert "Hash mismatch" in refused.stdout + refused.stderr


def test_the_public_tool_refuses_a_signature_that_was_tampered_with(signed):
    value = json.loads(signed.bundle.read_text())
    payload = value["dsseEnvelope"]["payload"]
    value["dsseEnvelope"]["payload"] = payload[:100] + ("A" if payload[100] != "A" else "B") + payload[101:]
    signed.bundle.write_text(json.dumps(value))
    command = ("verify", "key", signed.folder, "--signature", signed.bundle, "--public_key", signed.key)

    assert tool(*command).returncode != 0


@pytest.mark.parametrize("options", [[], ["--ignore-paths", "README.md"]])
def test_we_take_what_the_public_tool_signed_and_refuse_other_bytes(signed, tmp_path, options):
    key = ec.generate_private_key(ec.SECP384R1())
    (tmp_path / "secret.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "public.pem").write_bytes(public)
    bundle = tmp_path / "theirs.sig"
    ignored = [str(signed.folder / value) if value == "README.md" else value for value in options]
    made = tool("sign", "key", signed.folder, "--signature", bundle, "--private_key", tmp_path / "secret.pem", *ignored)
    assert made.returncode == 0, made.stderr
    command = ("verify", signed.folder, "--oms", bundle, "--key", tmp_path / "public.pem")

    signed.home.run(*command)
    spoil(signed.folder)

    assert "not as signed" in signed.home.run(*command, code=VERIFICATION_FAILED).out


def test_we_take_what_was_signed_with_a_certificate(signed, tmp_path):
    root_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = certificate(root_key, root_key, "Root", is_ca=True)
    leaf = certificate(leaf_key, root_key, "Ada", is_ca=False)
    for name, each in (("root.pem", root), ("leaf.pem", leaf)):
        (tmp_path / name).write_bytes(each.public_bytes(Encoding.PEM))
    (tmp_path / "secret.pem").write_bytes(leaf_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    bundle = tmp_path / "theirs.sig"
    made = tool(
        "sign", "certificate", signed.folder, "--signature", bundle, "--private_key", tmp_path / "secret.pem",
        "--signing_certificate", tmp_path / "leaf.pem", "--certificate_chain", tmp_path / "root.pem",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr

    told = signed.home.run("verify", signed.folder, "--oms", bundle, "--certificates", tmp_path / "root.pem").out

    assert "CN=Ada" in told


def certificate(key, issuer_key, subject: str, *, is_ca: bool) -> x509.Certificate:
    """Return a certificate of a year, vouched for by `Root`."""
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=is_ca, crl_sign=is_ca, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name.from_rfc4514_string(f"CN={subject}"))
        .issuer_name(x509.Name.from_rfc4514_string("CN=Root"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=364))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_public_validators_take_our_bills_of_materials(tmp_path, kind):
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator
    from spdx_python_model.bindings import v3_0_1

    home = Home(tmp_path / "home")
    write_sample_model(tmp_path / "model")
    home.run("id", "new")
    home.run("publish", tmp_path / "model", "parrot@1.0", "--kind", kind)
    cyclonedx = home.run("sbom", "parrot").out
    spdx = home.run("sbom", "parrot", "--as", "spdx").out
    validator = JsonStrictValidator(SchemaVersion.V1_6)

    assert validator.validate_str(cyclonedx) is None
    # It does refuse what breaks its schema.
    assert validator.validate_str(cyclonedx.replace('"name"', '"nom"', 1)) is not None
    objects = v3_0_1.SHACLObjectSet()
    v3_0_1.JSONLDDeserializer().read(io.BytesIO(spdx.encode()), objects)
    names = {element.name for element in objects.foreach_type("software_File", match_subclass=True)}
    assert names == {each["name"] for each in json.loads(cyclonedx)["components"]}
    broken = spdx.replace('"sha256"', '"sha257"')
    with pytest.raises(ValueError, match="not a valid"):
        v3_0_1.JSONLDDeserializer().read(io.BytesIO(broken.encode()), v3_0_1.SHACLObjectSet())


def test_a_folder_that_is_gone_is_an_error_that_says_so(signed):
    shutil.rmtree(signed.folder)

    told = signed.home.run("verify", signed.folder, "--oms", signed.bundle, "--key", signed.key, code=2)

    assert "is no folder" in told.err
