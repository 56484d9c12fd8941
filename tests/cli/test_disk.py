"""Disks that are full, read-only or not there, each in a mount namespace of its own."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from p2phub.testing.processes import COMMAND, Home, Outcome, tree

pytestmark = pytest.mark.timeout(180)

NO_SPACE = 8


def can_mount() -> bool:
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /mnt"], capture_output=True, check=False
    )
    return done.returncode == 0


needs_mounts = pytest.mark.skipif(
    not shutil.which("unshare") or not can_mount(), reason="no file system can be mounted here (unshare -m)"
)


def run_mounted(
    home: Home, mount: str, *commands: tuple[str, ...], between: Mapping[int, str] | None = None
) -> list[Outcome]:
    """Run commands one after the other where `mount` (shell) was done before; none sees it elsewhere.

    between: what is done (in shell) before some of them, by their index.
    """
    outcomes = []
    folder = home.folder.parent
    lines = [mount]
    for number, arguments in enumerate(commands):
        lines.extend([between[number]] if between and number in between else [])
        words = shlex.join([*COMMAND, *arguments])
        lines.append(f"code=0; {words} >{folder}/out-{number} 2>{folder}/err-{number} || code=$?")
        lines.append(f"echo $code >{folder}/code-{number}")
    subprocess.run(["unshare", "-m", "sh", "-ec", "\n".join(lines)], env=home.environment(), check=True, timeout=120)
    for number, arguments in enumerate(commands):
        out, err, code = (Path(f"{folder}/{name}-{number}").read_text() for name in ("out", "err", "code"))
        outcomes.append(Outcome(arguments, int(code), out, err))
        assert "Traceback" not in err, str(outcomes[-1])
    return outcomes


def tmpfs(folder: Path, size: str) -> str:
    folder.mkdir(exist_ok=True)
    return f"mount -t tmpfs -o size={size} tmpfs {folder}"


@pytest.fixture
def twelve(tmp_path: Path) -> Path:
    """Write a folder of 12 MB."""
    folder = tmp_path / "twelve"
    folder.mkdir()
    for number in range(3):
        (folder / f"part-{number}.bin").write_bytes(os.urandom(4_000_000))
    return folder


@needs_mounts
def test_a_store_on_a_full_disk_is_exit_code_8_for_publish_and_leaves_no_rubbish(twelve, tmp_path):
    home = Home(tmp_path / "home", {"P2PHUB_STORE": str(tmp_path / "store")})
    home.run("id", "new")
    published, listed, df = run_mounted(
        home,
        tmpfs(tmp_path / "store", "10m"),
        ("publish", str(twelve), "large@1.0.0"),
        ("search", "--offline"),
        ("store", "df", "--json"),
    )

    assert published.code == NO_SPACE, str(published)
    assert "no space" in published.err
    assert "store gc" in published.err
    assert published.out == ""
    assert listed.code == 0
    assert listed.out == ""
    # What was written for the file that did not fit is gone again.
    assert df.json["objects_bytes"] <= 8_100_000


@needs_mounts
def test_a_fetch_that_cannot_fit_is_refused_before_it_begins(twelve, seed, tmp_path):
    publisher = Home(tmp_path / "publisher")
    publisher.run("id", "new")
    revision = publisher.json("publish", str(twelve), "large")["revision"]
    home = Home(tmp_path / "home", {"P2PHUB_STORE": str(tmp_path / "store")})
    with publisher.node() as node:
        fetched, df = run_mounted(
            home,
            tmpfs(tmp_path / "store", "20m"),
            ("fetch", revision, "--peer", node.address),
            ("store", "df", "--json"),
        )
        uploaded = publisher.json("status")["uploaded"]

    assert fetched.code == NO_SPACE, str(fetched)
    assert "are free on" in fetched.err
    assert "stay free" in fetched.err
    assert fetched.out == ""
    assert df.json["partials_bytes"] == 0
    assert uploaded == 0


@needs_mounts
def test_a_disk_that_fills_up_during_a_fetch_is_exit_code_8_and_what_came_is_kept(twelve, tmp_path):
    publisher = Home(tmp_path / "publisher")
    publisher.run("id", "new")
    revision = publisher.json("publish", str(twelve), "large")["revision"]
    home = Home(tmp_path / "home", {"P2PHUB_STORE": str(tmp_path / "store")})
    # A quota lets a file system look larger than what may be written: here one folder of it is small,
    # too small for any of the files.
    small = tmp_path / "store" / "partial"
    with publisher.node() as node:
        fetch = ("fetch", revision, "--peer", node.address, "--json")
        first, again = run_mounted(
            home,
            f"mkdir -p {small}; mount -t tmpfs -o size=3m tmpfs {small}",
            fetch,
            fetch,
        )

    for outcome in (first, again):
        assert outcome.code == NO_SPACE, str(outcome)
        assert "no space left" in outcome.err
        assert outcome.out == ""


@needs_mounts
def test_a_home_on_a_full_disk_is_said_in_one_line(twelve, tmp_path):
    home = Home(tmp_path / "home", {"P2PHUB_STORE": str(tmp_path / "store")})
    outcomes = run_mounted(
        home,
        tmpfs(home.folder, "200k") + f"; head -c 1m /dev/zero >{home.folder}/filler || true",
        ("status",),
        ("id", "new"),
        ("search", "--offline"),
    )

    for outcome in outcomes:
        assert outcome.code == NO_SPACE, str(outcome)
        assert len([line for line in outcome.err.splitlines() if line.startswith("p2phub: error: ")]) == 1


@needs_mounts
def test_a_home_whose_disk_was_filled_by_others_is_said_in_one_line_and_works_again(tmp_path):
    home = Home(tmp_path / "home")
    filler = home.folder / "filler"
    made, full, freed = run_mounted(
        home,
        tmpfs(home.folder, "8m"),
        ("id", "new"),
        ("status",),
        ("status",),
        between={1: f"head -c 9m /dev/zero >{filler} || true", 2: f"rm {filler}"},
    )

    assert made.code == freed.code == 0, str(freed)
    assert full.code == NO_SPACE, str(full)
    assert full.err.startswith("p2phub: error: no space left for the index")
    assert "by hand" in full.err


@needs_mounts
def test_without_room_for_an_identity_nothing_of_it_is_made(tmp_path):
    home = Home(tmp_path / "home")
    filler = home.folder / "filler"
    opened, full, shown, made = run_mounted(
        home,
        tmpfs(home.folder, "8m"),
        ("status",),
        ("id", "new"),
        ("id",),
        ("id", "new"),
        between={
            1: f"head -c 9m /dev/zero >{filler} || true; truncate -s -150k {filler}",
            3: f"ls {home.folder}/keys >{tmp_path}/keys; rm {filler}",
        },
    )

    assert opened.code == made.code == 0, str(made)
    assert full.code == NO_SPACE, str(full)
    assert "for an identity" in full.err
    assert shown.code == 3, str(shown)
    assert (tmp_path / "keys").read_text().split() == ["node.key"]


@needs_mounts
def test_a_home_that_is_read_only_is_said_in_words(copy_home):
    home = copy_home()
    read_only = f"mount --bind {home.folder} {home.folder}; mount -o remount,ro,bind {home.folder}"
    for outcome in run_mounted(home, read_only, ("status",), ("search", "--offline")):
        assert outcome.code == 1, str(outcome)
        assert "nothing can be written there" in outcome.err
        assert "P2PHUB_STORE" in outcome.err


@needs_mounts
def test_a_target_folder_on_a_full_disk_is_named(seed, copy_home, tmp_path):
    home = copy_home()
    (fetched,) = run_mounted(
        home,
        tmpfs(tmp_path / "target", "1m"),
        ("fetch", seed.name, "--to", str(tmp_path / "target" / "out"), "--link", "copy", "--offline"),
    )

    assert fetched.code == NO_SPACE, str(fetched)
    assert str(tmp_path / "target") in fetched.err
    home.run("verify", seed.name)


@needs_mounts
def test_a_read_only_store_gives_what_it_has_and_refuses_to_change(seed, copy_home, twelve, tmp_path):
    # As on a cluster, where a group keeps one store and each member a home.
    home = copy_home()
    read_only = f"mount --bind {home.store} {home.store}; mount -o remount,ro,bind {home.store}"
    out = tmp_path / "out"
    looked, listed, fetched, verified, published, missing = run_mounted(
        home,
        read_only,
        ("search", "--offline", "--json"),
        ("ls", seed.name, "--offline", "--json"),
        ("fetch", seed.name, "--offline", "--to", str(out)),
        ("verify", seed.name, "--offline"),
        ("publish", str(twelve), "large"),
        ("fetch", f"{seed.namespace}/sentences", *seed.peer),
    )

    assert looked.code == listed.code == fetched.code == verified.code == 0, str(fetched)
    assert looked.json
    assert tree(out) == tree(seed.folder)
    for outcome in (published, missing):
        assert outcome.code == 1, str(outcome)
        assert "ead-only" in outcome.err
        assert len([line for line in outcome.err.splitlines() if line.startswith("p2phub: error: ")]) == 1


@needs_mounts
def test_a_folder_on_another_file_system_is_linked_or_copied(seed, copy_home, tmp_path):
    home = copy_home()
    target = tmp_path / "target"
    linked, copied, hard = run_mounted(
        home,
        tmpfs(target, "20m"),
        ("fetch", seed.name, "--offline", "--to", str(target / "auto"), "--json"),
        ("fetch", seed.name, "--offline", "--to", str(target / "copy"), "--link", "copy", "--json"),
        ("fetch", seed.name, "--offline", "--to", str(target / "hard"), "--link", "hard"),
    )

    assert linked.json["linked"] == "sym"
    assert copied.json["linked"] == "copy"
    assert hard.code == 1
    assert "hard link" in hard.err
