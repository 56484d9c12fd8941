"""The policy file at work: what a fetch leaves out, refuses and places."""

from __future__ import annotations

import os
import pickle
import warnings
from pathlib import Path

import pytest
import trio

import p2phub
from p2phub.core.access import ANYBODY
from p2phub.core.errors import AccessDenied, HubError, InvalidName, StoreError
from p2phub.core.rules import Consent, Rules
from p2phub.node import rulecheck
from p2phub.node.dispatch import run
from p2phub.node.events import Event, Notice, ignore
from p2phub.node.fetch import fetch
from p2phub.node.identity import create_identity
from p2phub.node.operations.content import Fetch, FetchFile
from p2phub.node.operations.rules import CheckRules, ShowRules
from p2phub.node.operations.status import GetStatus
from p2phub.node.publish import publish
from p2phub.testing.hostile import open_home, serving
from p2phub.testing.processes import tree

pytestmark = pytest.mark.timeout(120)

EVERYTHING = Consent(pickles=True, code=True)


class Evil:
    """Runs a program when it is loaded."""

    def __reduce__(self) -> object:
        return os.system, ("touch /tmp/owned",)


PICKLES = {"good.pkl": pickle.dumps({"a": [1.0, 2.0]}), "weights.bin": pickle.dumps([1, 2, 3])}
FILES = {
    "model.safetensors": os.urandom(1000),
    "README.md": b"---\nlicense: mit\n---\n# Mixed\n",
    "raw.bin": os.urandom(3000),
    "modeling.py": b"print('hello')\n",
    **PICKLES,
}


def write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for path, data in files.items():
        (folder / path).write_bytes(data)


def read(path: str) -> bytes:
    return Path(path).read_bytes()


async def publish_files(node, folder: Path, files: dict[str, bytes], name: str = "mixed") -> str:
    write(folder, files)
    if not node.settings.layout.own_identity.exists():
        create_identity(node)
    result = await publish(node, folder, name, ignore)
    return f"{result.namespace}/{name}"


async def test_pickles_and_programs_stay_out_until_somebody_says_so(tmp_path):
    async with open_home(tmp_path / "home") as node:
        name = await publish_files(node, tmp_path / "files", FILES)
        plain = await fetch(node, name, ignore, to=tmp_path / "plain")
        pickled = await fetch(node, name, ignore, to=tmp_path / "pickled", consent=Consent(pickles=True))
        coded = await fetch(node, name, ignore, to=tmp_path / "coded", consent=Consent(code=True))
        whole = await fetch(node, name, ignore, to=tmp_path / "all", consent=EVERYTHING)

    assert set(tree(tmp_path / "plain")) == FILES.keys() - PICKLES.keys() - {"modeling.py"}
    assert sorted(out.path for out in plain.left_out) == ["good.pkl", "modeling.py", "weights.bin"]
    assert all(out.hint for out in plain.left_out)
    assert plain.files == 3
    assert set(tree(tmp_path / "pickled")) == FILES.keys() - {"modeling.py"}
    assert [out.path for out in pickled.left_out] == ["modeling.py"]
    assert set(tree(tmp_path / "coded")) == FILES.keys() - PICKLES.keys()
    assert {out.path for out in coded.left_out} == PICKLES.keys()
    assert set(tree(tmp_path / "all")) == set(FILES)
    assert whole.left_out == []


async def test_what_is_left_out_by_its_name_is_not_even_fetched(tmp_path):
    files = {"model.safetensors": os.urandom(1000), "pytorch_model.bin": os.urandom(500_000)}
    async with open_home(tmp_path / "seed") as seed, serving(seed) as address, open_home(tmp_path / "home") as node:
        name = await publish_files(seed, tmp_path / "files", files)
        node.store.peers.add(address)
        result = await fetch(node, name, ignore)

    assert [out.path for out in result.left_out] == ["pytorch_model.bin"]
    assert result.received == 1000


async def test_a_pickle_that_runs_something_is_refused_and_nothing_is_placed(tmp_path):
    files = FILES | {"evil.bin": pickle.dumps(Evil())}
    async with open_home(tmp_path / "home") as node:
        name = await publish_files(node, tmp_path / "files", files)
        with pytest.raises(AccessDenied, match=r"evil\.bin.*posix\.system"):
            await fetch(node, name, ignore, to=tmp_path / "to", consent=EVERYTHING)
        # Without consent it stays out as any pickle does.
        plain = await fetch(node, name, ignore, to=tmp_path / "plain")

    assert not (tmp_path / "to").exists()
    assert "evil.bin" in {out.path for out in plain.left_out}


async def test_a_pickle_under_a_harmless_name_is_found(tmp_path):
    files = {"model.safetensors": pickle.dumps(Evil()), "config.json": pickle.dumps(Evil()), "README.md": b"# Hi\n"}
    async with open_home(tmp_path / "home") as node:
        name = await publish_files(node, tmp_path / "files", files)
        result = await fetch(node, name, ignore, to=tmp_path / "to")
        with pytest.raises(AccessDenied, match=r"posix\.system"):
            await fetch(node, name, ignore, to=tmp_path / "to", consent=EVERYTHING)

    assert set(tree(tmp_path / "to")) == {"README.md"}
    assert len(result.left_out) == 2


async def test_nothing_left_is_an_error_that_says_what_to_do(tmp_path):
    async with open_home(tmp_path / "home") as node:
        name = await publish_files(node, tmp_path / "files", {"a.pt": PICKLES["good.pkl"]})
        with pytest.raises(AccessDenied) as failure:
            await fetch(node, name, ignore)

    assert "a.pt is a pickle" in str(failure.value)
    assert "--allow-pickle" in (failure.value.hint or "")


async def test_a_single_file_by_its_hash_is_looked_into(tmp_path):
    files = {"evil.bin": pickle.dumps(Evil()), "good.bin": PICKLES["good.pkl"], "raw.bin": os.urandom(2000)}
    async with open_home(tmp_path / "home") as node:
        await publish_files(node, tmp_path / "files", files)
        roots = {
            file.path: str(file.root) for m in node.store.manifests.all() for file in node.store.manifests.get(m).files
        }
        await fetch(node, roots["raw.bin"], ignore)
        with pytest.raises(AccessDenied, match="is a pickle"):
            await fetch(node, roots["good.bin"], ignore)
        await fetch(node, roots["good.bin"], ignore, consent=EVERYTHING)
        with pytest.raises(AccessDenied, match=r"posix\.system"):
            await fetch(node, roots["evil.bin"], ignore, consent=EVERYTHING)


async def test_a_file_that_somebody_names_is_looked_into_and_given(tmp_path):
    files = FILES | {"evil.bin": pickle.dumps(Evil())}
    async with open_home(tmp_path / "home") as node:
        name = await publish_files(node, tmp_path / "files", files)
        for path in ("modeling.py", "good.pkl"):
            found = await run(node, FetchFile(name, path), ignore)
            assert read(found.location) == FILES[path]
        with pytest.raises(AccessDenied, match=r"posix\.system"):
            await run(node, FetchFile(name, "evil.bin"), ignore)


async def test_the_file_is_read_again_when_it_changes(tmp_path):
    async with open_home(tmp_path / "home") as node:
        name = await publish_files(node, tmp_path / "files", FILES)
        policy = tmp_path / "home" / "policy.toml"
        assert node.rules.current() == Rules()
        policy.write_text("[licences]\nallow = ['Apache-2.0']\n")
        with pytest.raises(AccessDenied, match="MIT"):
            await fetch(node, name, ignore)
        policy.write_text("[licences]\nallow = ['MIT']\n")
        await fetch(node, name, ignore)
        policy.write_text("[licences]\nalow = ['MIT']\n")
        # Less than it may say is never enough.
        with pytest.raises(InvalidName, match=r"licences\.alow") as failure:
            await fetch(node, name, ignore)
        policy.unlink()
        await fetch(node, name, ignore)

    assert "policy.toml" in str(failure.value)
    assert "licences.allow" in (failure.value.hint or "")


async def test_a_policy_file_that_was_named_must_be_there(tmp_path):
    async with open_home(tmp_path / "home", policy_file=tmp_path / "other.toml") as node:
        name = await publish_files(node, tmp_path / "files", FILES)
        with pytest.raises(StoreError, match=r"other\.toml"):
            await fetch(node, name, ignore)


@pytest.mark.parametrize("what", ["folder", "pipe", "links"])
async def test_what_is_no_file_is_no_policy_and_is_not_waited_for(tmp_path, what):
    async with open_home(tmp_path / "home") as node:
        policy = tmp_path / "home" / "policy.toml"
        match what:
            case "folder":
                policy.mkdir()
            case "pipe":
                os.mkfifo(policy)
            case _:
                policy.symlink_to(policy)
        with pytest.raises(HubError, match=r"policy\.toml") as failure:
            await run(node, ShowRules(), ignore)
        status = await run(node, GetStatus(), ignore)

    assert "p2phub policy show" in (failure.value.hint or "")
    assert "policy.toml" in status.policy_trouble


async def test_a_policy_file_may_be_of_an_editor_that_marks_its_encoding(tmp_path):
    async with open_home(tmp_path / "home") as node:
        (tmp_path / "home" / "policy.toml").write_text("[licences]\nallow = ['MIT']\n", encoding="utf-8-sig")
        shown = await run(node, ShowRules(), ignore)
        status = await run(node, GetStatus(), ignore)

    assert list(shown.rules["licences"]["allow"]) == ["MIT"]
    assert status.policy_trouble == ""


async def test_trouble_with_the_policy_file_is_logged_once_until_it_is_over(tmp_path, caplog):
    async with open_home(tmp_path / "home") as node:
        policy = tmp_path / "home" / "policy.toml"
        for text in ("[licence]", "[licence]", "[licences]", "[licences]", "[licence]"):
            policy.write_text(text)
            node.access.refused.withheld(ANYBODY, [bytes(32)])

    told = [record.getMessage() for record in caplog.records if "given" in record.getMessage()]
    assert [text.split()[0] for text in told] == ["nothing", "the", "nothing"]
    assert "did you mean licences?" in told[0]


async def test_blocked_content_is_refused(tmp_path):
    async with open_home(tmp_path / "home") as node:
        name = await publish_files(node, tmp_path / "files", FILES)
        [manifest] = node.store.manifests.all()
        root = node.store.manifests.get(manifest).file("README.md").root
        for what in (f"publishers = ['{name.split('/')[0]}']", f"content = ['{manifest}']", f"content = ['{root}']"):
            (tmp_path / "home" / "policy.toml").write_text(f"[block]\n{what}\n")
            with pytest.raises(AccessDenied, match="blocks"):
                await fetch(node, name, ignore)
        with pytest.raises(AccessDenied, match="blocks"):
            await fetch(node, str(root), ignore)


async def test_check_says_what_would_happen(tmp_path):
    files = FILES | {"evil.bin": pickle.dumps(Evil())}
    async with open_home(tmp_path / "home") as node:
        name = await publish_files(node, tmp_path / "files", files)
        shown = await run(node, ShowRules(), ignore)
        found = await run(node, CheckRules(name), ignore)
        by_path = await run(node, CheckRules(str(tmp_path / "files")), ignore)

    assert (shown.exists, shown.rules["pickles"]["fetch"]) == (False, "ask")
    outcomes = {(finding.path, finding.outcome) for finding in found.findings}
    assert outcomes >= {("evil.bin", "refused"), ("modeling.py", "left out"), ("good.pkl", "fine")}
    assert {(f.path, f.outcome) for f in by_path.findings} >= {("evil.bin", "refused"), ("modeling.py", "left out")}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "is neither a file nor a folder"),
        (lambda path: path.symlink_to("/dev/zero"), "is neither a file nor a folder"),
        (lambda path: path.symlink_to(path.name + "-elsewhere"), "is a link to nothing"),
    ],
    ids=["pipe", "device", "link"],
)
async def test_what_cannot_be_looked_into_is_not_called_fine(tmp_path, make, said):
    path = tmp_path / "model.pt"
    make(path)
    async with open_home(tmp_path / "home") as node:
        with pytest.raises(InvalidName, match=said) as failure:
            await run(node, CheckRules(str(path)), ignore)

    assert "name " in (failure.value.hint or "")


async def test_a_folder_is_looked_through_past_what_is_no_file_and_that_is_said(tmp_path):
    write(tmp_path / "files", {"evil.bin": pickle.dumps(Evil())})
    os.mkfifo(tmp_path / "files" / "pipe.pt")
    (tmp_path / "files" / "link.pt").symlink_to("nowhere")
    (tmp_path / "files" / "folder").symlink_to(tmp_path)
    told: list[Event] = []
    async with open_home(tmp_path / "home") as node:
        found = await run(node, CheckRules(str(tmp_path / "files")), told.append)

    assert [(finding.path, finding.outcome) for finding in found.findings] == [("evil.bin", "refused")]
    [notice] = [event for event in told if isinstance(event, Notice)]
    assert notice.text.startswith("not looked into: 3 ")


async def test_of_more_files_than_are_looked_at_nothing_is_said(tmp_path, monkeypatch):
    write(tmp_path / "files", FILES)
    async with open_home(tmp_path / "home") as node:
        monkeypatch.setattr(rulecheck, "FILES_MAX", len(FILES))
        await run(node, CheckRules(str(tmp_path / "files")), ignore)
        monkeypatch.setattr(rulecheck, "FILES_MAX", len(FILES) - 1)
        with pytest.raises(InvalidName, match="more than 5 files") as failure:
            await run(node, CheckRules(str(tmp_path / "files")), ignore)

    assert "policy check" in (failure.value.hint or "")


def test_python_is_told_what_is_missing(tmp_path):
    write(tmp_path / "files", FILES)

    async def make() -> str:
        async with open_home(tmp_path / "home") as node:
            create_identity(node)
            return (await publish(node, tmp_path / "files", "mixed", ignore)).namespace

    name = f"{trio.run(make)}/mixed"
    with pytest.warns(UserWarning, match=r"good\.pkl is a pickle.*and 2 more files; allow_pickle=True"):
        p2phub.snapshot_download(name, home=tmp_path / "home", local_dir=tmp_path / "out")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p2phub.snapshot_download(
            name, home=tmp_path / "home", local_dir=tmp_path / "all", allow_pickle=True, with_code=True
        )
        # Who names a file wants it.
        path = p2phub.file_download(name, "good.pkl", home=tmp_path / "home")

    assert set(tree(tmp_path / "all")) == set(FILES)
    assert read(path) == FILES["good.pkl"]


async def test_what_is_sealed_is_looked_into_as_what_it_is_opened(tmp_path):
    async with open_home(tmp_path / "home") as node:
        write(tmp_path / "files", FILES)
        create_identity(node)
        await publish(node, tmp_path / "files", "shut", ignore, sealed=True)
        plain = await fetch(node, "shut", ignore, to=tmp_path / "plain")
        whole = await fetch(node, "shut", ignore, to=tmp_path / "all", consent=EVERYTHING)
        (tmp_path / "files" / "evil.bin").write_bytes(pickle.dumps([b"x" * 3_000_000, Evil()]))
        await publish(node, tmp_path / "files", "shut", ignore, sealed=True)
        with pytest.raises(AccessDenied, match=r"evil\.bin.*posix\.system"):
            await fetch(node, "shut", ignore, to=tmp_path / "evil", consent=EVERYTHING)
        with pytest.raises(AccessDenied, match=r"posix\.system"):
            await run(node, FetchFile("shut", "evil.bin"), ignore)
        # Whoever keeps it for others opens nothing, so that there is nothing to look into.
        kept = await run(node, Fetch("shut", sealed=True), ignore)

    assert sorted(out.path for out in plain.left_out) == ["good.pkl", "modeling.py", "weights.bin"]
    assert set(tree(tmp_path / "plain")) == {"model.safetensors", "README.md", "raw.bin"}
    assert set(tree(tmp_path / "all")) == set(FILES)
    assert whole.left_out == []
    assert not (tmp_path / "evil").exists()
    assert kept.path is None
