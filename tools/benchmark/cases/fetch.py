"""One large file from one provider, and from three: beside the limit, and beside what people use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from .. import fetching, others
from ..measuring import Failure, Row, Sample, Target
from ..nodes import Node, clean_environment
from ..usage import run_command
from ..workplace import Workplace

CASE = "fetch"
SHORT, FULL = 2**29, 2**31  # bytes
PROVIDERS = 3

ARIA2, RCLONE, RSYNC, LIBTORRENT = "aria2c + b3sum", "rclone + b3sum", "rsync daemon", "libtorrent v2"
# How the rate compares with that of the limit program of the right kind.
RATES = {
    "plain": Target("rate", "≥", 0.9, "limit, plain"),
    "frames": Target("rate", "≥", 0.7, "limit, plain"),
    "tls": Target("rate", "≥", 0.9, "limit, tls"),
}
TIMES = (
    Target("seconds", "≤", 0.4, ARIA2),
    Target("seconds", "≤", 0.4, LIBTORRENT),
    Target("seconds", "≤", 0.65, RCLONE),
    Target("seconds", "≤", 0.85, RSYNC),
)


def rows(place: Workplace) -> list[Row]:
    """Start what serves, and return what is to be measured."""
    source = place.model(place.size(SHORT, FULL))
    file = source / "model.safetensors"
    publisher, revision = place.publisher(source)
    found = [Row(CASE, f"limit, {kind}", limit(place, file, kind)) for kind in RATES]
    # What gives frames gives over TLS too.
    plain, secure = (
        fetching.serve(place, place.stack, publisher, PROVIDERS, transport=kind) for kind in ("plain", "frames")
    )
    for kind, nodes in (("plain", plain), ("frames", secure), ("tls", secure)):
        found += p2phub_rows(place, nodes, revision, kind)
    found += other_rows(place, source, file)
    for row in found:
        row.amount = file.stat().st_size
    return found


def limit(place: Workplace, file: Path, kind: str) -> Callable[[], Sample]:
    """Return what fetches `file` with the limit programs."""
    server = others.start_limit(place, place.stack, file, kind)
    target = place.target / "file"
    command = others.limit_fetch(server, target, file.stat().st_size, kind)
    return partial(checked, place, command, server, target, others.digest(file))


def p2phub_rows(place: Workplace, nodes: list[Node], revision: str, kind: str) -> Iterator[Row]:
    """Give the rows of one transport: from one provider and from all."""
    one = f"p2phub {kind}, 1 provider"
    cpu = Target("cpu_per_gb", "≤", 1.3, f"limit, {kind}")
    times = () if kind == "tls" else TIMES
    yield Row(CASE, one, fetching.fetch(place, revision, nodes[:1], transport=kind), targets=(RATES[kind], cpu, *times))
    yield Row(
        CASE,
        f"p2phub {kind}, {PROVIDERS} providers",
        fetching.fetch(place, revision, nodes, transport=kind),
        targets=(Target("seconds", "≤", 1.0, one),),
    )


def other_rows(place: Workplace, source: Path, file: Path) -> Iterator[Row]:
    """Give the rows of what is installed of the others."""
    digest = others.digest(file)
    target = place.target / file.name

    def row(name: str, command: list[str], server: others.Server) -> Row:
        return Row(CASE, name, partial(checked, place, command, server, target, digest))

    with place.optional(f"{ARIA2} and {RCLONE}"):
        web = others.start_nginx(place, place.stack, source)
        with place.optional(ARIA2):
            yield row(ARIA2, others.then_hash(others.aria2(web, file.name, target), target), web)
        with place.optional(RCLONE):
            yield row(RCLONE, others.then_hash(others.rclone(web, place.target), target), web)
    with place.optional(RSYNC):
        daemon = others.start_rsync(place, place.stack, source)
        rsync = others.then_sync(others.rsync(daemon, file.name, target, "--whole-file"), target)
        yield Row(CASE, RSYNC, partial(run_rsync, place, rsync, daemon, target, digest))
    with place.optional(LIBTORRENT):
        torrent = others.make_torrent(place, file)
        seed = others.start_seed(place, place.stack, torrent, source)
        yield row(LIBTORRENT, others.torrent_fetch(torrent, place.target, seed.address), seed)


def checked(place: Workplace, command: list[str], server: others.Server, target: Path, digest: str) -> Sample:
    """Run one of the others. Raises Failure if the file `target` that it brings has other bytes."""
    sample = run_command(command, clean_environment(), output=place.output, serving=[server.pid])
    if others.digest(target) != digest:
        raise Failure(f"`{' '.join(command)}` brought other bytes")
    return sample


def run_rsync(place: Workplace, command: list[str], daemon: others.Server, target: Path, digest: str) -> Sample:
    """Run rsync; its server is a short-lived child of the daemon, whose memory nobody sees."""
    sample = checked(place, command, daemon, target, digest)
    del sample["serving_peak"]
    return sample
