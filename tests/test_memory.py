"""Memory stays flat on either side: with a larger file, and with many connections."""

from __future__ import annotations

import os
import random
import shutil
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
import trio

from p2phub.core.ids import ManifestId
from p2phub.core.names import Address, parse_address
from p2phub.node.events import ignore
from p2phub.node.identity import create_identity
from p2phub.node.publish import publish
from p2phub.protocol.messages import ByteRange
from p2phub.testing.askers import Talker, talkers
from p2phub.testing.hostile import open_home, serving
from p2phub.testing.processes import Home

MIB = 1024 * 1024
SMALL, LARGE = 96 * MIB, 384 * MIB
CONNECTIONS = 16
# Bytes. What is measured here is about 95 MiB for a download over 16 connections, and 80 for who serves them; what a
# process takes before it does anything is 55 of it.
PEAK_MAX = 120 * MIB
# A short download does not come to use all connections at once, whose buffers are 32 MiB.
GROWTH_MAX = 40 * MIB

pytestmark = pytest.mark.timeout(180)


async def publish_file(home: Path, size: int) -> str:
    """Publish a repository of one file of random bytes from `home`; returns its revision."""
    folder = home.with_name(f"{home.name}-folder")
    write_random(folder / "weights.bin", size)
    async with open_home(home) as node:
        create_identity(node)
        revision = (await publish(node, folder, "weights", ignore)).revision
    shutil.rmtree(folder)
    return revision


def write_random(path: Path, size: int) -> None:
    path.parent.mkdir()
    rng = random.Random(size)
    with open(path, "wb") as file:
        for _ in range(size // (16 * MIB)):
            file.write(rng.randbytes(16 * MIB))


def twin(home: Path, to: Path) -> Path:
    """Make another node that holds the same files, which are on disk once."""

    def copy(source: str, target: str) -> None:
        (os.link if "objects" in Path(source).parts else shutil.copy2)(source, target)

    shutil.copytree(home, to, copy_function=copy)
    (to / "keys" / "node.key").unlink()
    return to


def peak(process: int) -> int:
    """Return the most memory that a process had, in bytes; 0 once it has ended."""
    # Not from getrusage, where a child begins with the peak of its parent.
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 if "VmHWM:" in status else 0


def fetch_peak(home: Home, revision: str, peers: list[Address]) -> int:
    """Fetch as a command; returns its peak memory."""
    process = home.start("fetch", revision, *(word for peer in peers for word in ("--peer", str(peer))))
    most = 0
    while process.poll() is None:
        most = max(most, peak(process.pid))
        time.sleep(0.005)
    out, err = process.communicate()
    assert process.returncode == 0, f"{out}\n{err}"
    return most


@pytest.mark.parametrize("only_tls", [False, True], ids=["frames", "https"])
async def test_a_download_takes_as_much_memory_for_a_large_file_as_for_a_small_one(only_tls, tmp_path):
    peaks = {}
    for size in (SMALL, LARGE):
        first = tmp_path / f"home-{size}"
        revision = await publish_file(first, size)
        async with AsyncExitStack() as stack:
            addresses = []
            for number in range(CONNECTIONS):
                node = await stack.enter_async_context(open_home(twin(first, tmp_path / f"{size}-{number}")))
                addresses.append(await stack.enter_async_context(serving(node)))
            home = Home(tmp_path / f"fetcher-{size}", {"P2PHUB_ONLY_TLS": "1"} if only_tls else {})
            peaks[size] = await trio.to_thread.run_sync(fetch_peak, home, revision, addresses)
    print({size // MIB: most / MIB for size, most in peaks.items()})

    assert 0 < peaks[LARGE] < PEAK_MAX
    assert peaks[LARGE] - peaks[SMALL] < GROWTH_MAX


async def test_serving_takes_little_memory_however_many_are_connected(tmp_path):
    home = Home(tmp_path / "seed")
    revision = await publish_file(home.folder, LARGE)
    async with open_home(home.folder) as node:
        (file,) = node.store.manifests.get(ManifestId.parse(revision)).files
    seed = await trio.to_thread.run_sync(home.start_node)
    try:
        address = parse_address(seed.address)
        async with AsyncExitStack() as stack:
            # Of several addresses, as one alone does not get all slots.
            many: list[Talker] = []
            for number in range(8):
                source = f"127.0.0.{2 + number}"
                many += await stack.enter_async_context(talkers(address, CONNECTIONS, source=source))

            async def take(talker: Talker, number: int) -> None:
                offset = number % (LARGE // (16 * MIB)) * 16 * MIB
                answered = False
                while not answered:
                    await talker.ask([ByteRange(file.root, offset, 16 * MIB)])
                    answer = await talker.answer()
                    if answered := answer.status == 200:
                        assert len(await talker.content(answer.size)) == 16 * MIB
                    else:
                        await trio.sleep(0.2)

            async with trio.open_nursery() as nursery:
                for number, talker in enumerate(many[::8]):
                    nursery.start_soon(take, talker, number)
            at_first = peak(seed.process.pid)
            # And now all of them, one after the other: who has been answered and waits holds nothing.
            for number, talker in enumerate(many):
                await take(talker, number)
            at_last = peak(seed.process.pid)
    finally:
        await trio.to_thread.run_sync(partial(seed.stop))
    print(at_first / MIB, at_last / MIB)

    assert 0 < at_first < PEAK_MAX
    assert at_last - at_first < GROWTH_MAX
