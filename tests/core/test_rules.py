"""The policy file: what is understood of it, and what follows from it."""

from __future__ import annotations

import pytest

from p2phub.core.errors import InvalidName
from p2phub.core.formats import format_of, is_surely_pickled, may_be_pickled
from p2phub.core.ids import ContentId, ManifestId, NamespaceId
from p2phub.core.licenses import permits
from p2phub.core.picklenames import Scan
from p2phub.core.rules import Consent, Facts, File, Rules, judge, judge_content, judge_pickle, parse, refusal

MANIFEST = ManifestId(bytes([1] * 32))
PUBLISHER = NamespaceId(bytes([2] * 32))
NOTHING = Consent()
EVERYTHING = Consent(pickles=True, code=True)


def facts(*paths: str, licence: str | None = None, publisher: NamespaceId | None = PUBLISHER) -> Facts:
    return Facts(MANIFEST, tuple(File(path, ContentId(bytes([9] * 31 + [i])) ) for i, path in enumerate(paths)),
                 licence, publisher)  # fmt: skip


def left_out(rules: Rules, *paths: str, consent: Consent = NOTHING) -> list[str | None]:
    return [finding.path for finding in judge(rules, facts(*paths), consent) if finding.outcome == "left out"]


# ── the file ────────────────────────────────────────────────────────────────


def test_an_empty_file_says_what_no_file_says() -> None:
    assert parse("") == Rules()


def test_all_that_can_be_said_is_understood() -> None:
    rules = parse(
        f"""
        [licences]
        allow = ["Apache-2.0", "llama3"]
        deny = ["MIT"]
        unknown = false
        [formats]
        allow = ["safetensors"]
        [pickles]
        fetch = "scanned"
        door = "never"
        allow = ["collections.defaultdict"]
        accept = ["b3:{"00" * 32}"]
        [code]
        fetch = "never"
        door = "never"
        [block]
        publishers = ["{PUBLISHER}"]
        content = ["{MANIFEST}"]
        """
    )

    assert rules.licences.unknown is False
    assert rules.formats.allow == ("safetensors",)
    assert rules.pickles.fetch == "scanned"
    assert rules.block.publishers == (str(PUBLISHER),)


@pytest.mark.parametrize(
    ("text", "error", "hint"),
    [
        ("[licenses]\nallow = []", "licenses is no rule", "licences"),
        ("[pickles]\nfetsh = 'ask'", "pickles.fetsh is no rule", "pickles.fetch"),
        ("[formats]\nzzz = 1", "formats.zzz is no rule", "known here: allow"),
        ("[pickles]\nfetch = 'maybe'", "pickles.fetch: invalid enum value 'maybe'", "one of ask, never, scanned"),
        ("[pickles]\nfetch = true", "pickles.fetch", "one of ask"),
        ("[formats]\nallow = ['safetensor']", "formats.allow[0]: invalid enum value 'safetensor'", "tflite"),
        ("[formats]\nallow = 'safetensors'", "formats.allow: expected array", 'allow = ["one", "another"]'),
        ("[licences]\nallow = [1979-05-27]", "licences.allow[0]: expected str", "text in quotes"),
        ("[licences]\nunknown = 'yes'", "licences.unknown: expected bool", "true or false, without quotes"),
        ("[fresh]\nmax_age_days = 0", "fresh.max_age_days", "a whole number from 1 to 3650"),
        ("[attested]\nclaim = 'scan'", "attested: expected array", "write [[attested]]"),
        ("[[attested]]\nclam = 'scan'", "attested[0]: object contains unknown field clam", "claim, by, need"),
        ("x = " + "[" * 5000 + "]" * 5000, "nested too deep", ""),
        ("[licences]\nallow = ['Apache']", "'Apache' is no licence", ""),
        ("[licences]\nunknown = 1", "unknown", ""),
        ("[block]\npublishers = ['M e']", "'M e' is no", ""),
        ("[block]\ncontent = ['b3:12']", "b3:12", ""),
        ("[pickles]\naccept = ['x']", "'x' is no", ""),
        ("[pickles]\nallow = ['os.*']", "no whole name", ""),
        ("pickles = 3", "pickles must be a table", "[pickles]"),
        ("[[pickles]]\n", "pickles must be a table", "[pickles]"),
        ("[pickles", "no TOML", ""),
    ],
)
def test_what_is_not_understood_is_an_error_that_says_where(text: str, error: str, hint: str) -> None:
    with pytest.raises(InvalidName) as failure:
        parse(text)

    assert error in str(failure.value)
    assert hint in (failure.value.hint or "")


# ── names and formats ───────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("model.safetensors", "safetensors"), ("a/b/Q4_K_M.GGUF", "gguf"), ("pytorch_model.bin", "pickle"),
        ("x.PT", "pickle"), ("x.pkl.gz", "pickle"), ("x.joblib.z", "pickle"), ("x.csv.gz", "archive"),
        ("modeling_x.py", "code"), ("lib.so", "code"), ("README.md", "text"), ("LICENSE", "other"),
        ("a.b/LICENSE", "other"),
        ("Dockerfile", "code"), (".gitattributes", "text"), ("saved_model.pb", "tensorflow"), ("tf_model.h5", "keras"),
        ("a.npz", "numpy"), ("x", "other"), ("x.", "other"), ("spiece.model", "other"),
    ],
)  # fmt: skip
def test_the_end_of_a_name_says_what_a_file_is(path: str, form: str) -> None:
    assert format_of(path) == form


def test_some_names_are_of_pickles_alone_and_others_have_to_be_looked_at() -> None:
    assert all(map(is_surely_pickled, ("a/pytorch_model-00001-of-00002.bin", "training_args.bin", "x.pt", "best.ckpt")))
    assert not any(map(is_surely_pickled, ("model.bin", "weights.bin", "x.sav", "x.json", "ggml-base.bin")))
    assert all(map(may_be_pickled, ("model.bin", "x.npy", "anything", "x.pt")))
    assert not any(map(may_be_pickled, ("x.json", "x.safetensors", "x.py", "x.png")))


def test_by_default_weights_that_are_numbers_come_and_programs_stay_out() -> None:
    paths = ("a.safetensors", "a.gguf", "a.onnx", "config.json", "README.md", "weights.bin", "LICENSE", "x.parquet",
             "pytorch_model.bin", "a.pt", "modeling.py", "tf_model.h5", "saved_model.pb")  # fmt: skip

    assert left_out(Rules(), *paths) == ["pytorch_model.bin", "a.pt", "modeling.py", "tf_model.h5", "saved_model.pb"]
    assert left_out(Rules(), *paths, consent=EVERYTHING) == ["tf_model.h5", "saved_model.pb"]


def test_never_is_never_whatever_somebody_says() -> None:
    rules = parse("[pickles]\nfetch = 'never'\n[code]\nfetch = 'never'")

    assert left_out(rules, "a.pt", "a.py", consent=EVERYTHING) == ["a.pt", "a.py"]


def test_formats_can_be_named_by_the_owner() -> None:
    rules = parse("[formats]\nallow = ['keras', 'text']")

    assert left_out(rules, "tf_model.h5", "README.md", "a.safetensors") == ["a.safetensors"]


# ── licences, blocks ────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("expression", "allow", "deny", "fine"),
    [
        ("MIT", [], [], True),
        ("MIT", ["Apache-2.0"], [], False),
        ("MIT OR GPL-3.0-only", ["MIT"], [], True),
        ("MIT AND GPL-3.0-only", ["MIT"], [], False),
        ("MIT AND (BSD-3-Clause OR GPL-3.0-only)", ["MIT", "BSD-3-Clause"], [], True),
        ("GPL-3.0-only", [], ["GPL-3.0-only"], False),
        ("MIT OR GPL-3.0-only", [], ["GPL-3.0-only"], True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", ["GPL-2.0-only"], [], True),
        ("LicenseRef-llama3", ["LicenseRef-llama3"], [], True),
        ("mit", ["MIT"], [], True),
    ],
)
def test_licences_are_read_as_expressions(expression: str, allow: list[str], deny: list[str], fine: bool) -> None:
    assert permits(expression, allow, deny) is fine


def test_a_licence_that_is_not_accepted_refuses_all() -> None:
    rules = parse("[licences]\nallow = ['apache-2.0', 'llama3']\nunknown = false")

    for licence, fine in (("Apache-2.0", True), ("llama3", True), ("MIT", False), (None, False), ("who knows", False)):
        assert (refusal(judge(rules, facts("a", licence=licence), Consent())) is None) is fine


def test_blocked_publishers_revisions_and_files_are_refused() -> None:
    file = facts("a", "b").files[1]
    for rules in (
        parse(f"[block]\npublishers = ['{PUBLISHER}']"),
        parse(f"[block]\ncontent = ['{MANIFEST}']"),
        parse(f"[block]\ncontent = ['{file.root}']"),
    ):
        assert refusal(judge(rules, facts("a", "b"), EVERYTHING)) is not None
    assert refusal(judge(parse(f"[block]\ncontent = ['{file.root}']"), facts("a"), EVERYTHING)) is None


# ── pickles ─────────────────────────────────────────────────────────────────

FILE = File("weights.bin", ContentId(bytes([7] * 32)))
PLAIN = Scan(True, ("collections.OrderedDict", "torch._utils._rebuild_tensor_v2"))
EVIL = Scan(True, ("collections.OrderedDict", "posix.system"))
UNCLEAR = Scan(True, ("collections.OrderedDict",), "it breaks")


def test_a_pickle_needs_consent_and_a_clean_scan() -> None:
    for scan, consent, outcome in (
        (Scan(False), Consent(), None), (PLAIN, Consent(), "left out"), (PLAIN, EVERYTHING, None),
        (EVIL, Consent(), "left out"), (EVIL, EVERYTHING, "refused"), (UNCLEAR, EVERYTHING, "refused"),
    ):  # fmt: skip
        finding = judge_content(Rules(), FILE, scan, consent)

        assert (finding.outcome if finding else None) == outcome


def test_what_is_found_is_named() -> None:
    finding = judge_pickle(Rules(), FILE, EVIL)

    assert finding is not None
    assert "posix.system" in finding.text
    assert "OrderedDict" not in finding.text


def test_the_owner_can_allow_a_name_or_accept_a_file_by_its_hash() -> None:
    assert judge_pickle(parse("[pickles]\nallow = ['posix.system']"), FILE, EVIL) is None
    for accepted in (FILE.root, MANIFEST):
        rules = parse(f"[pickles]\naccept = ['{accepted}']")

        assert judge_pickle(rules, FILE, UNCLEAR, MANIFEST) is None
    assert judge_pickle(rules, FILE, UNCLEAR) is not None
