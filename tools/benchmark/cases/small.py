"""Many small files, from nothing to verified: what a fetch costs that is not bytes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .. import fetching, others
from ..measuring import Failure, Row, Sample, Target
from ..nodes import clean_environment
from ..usage import run_command
from ..workplace import Workplace

CASE = "small"
FILE_SIZE = 10_000  # bytes
COUNTS = (100, 1000)


def rows(place: Workplace) -> list[Row]:
    """Return the rows for each number of files."""
    found: list[Row] = []
    for count in COUNTS:
        source = files(place, count)
        publisher, revision = place.publisher(source)
        rsync = f"rsync daemon, {count} files"
        targets = (Target("seconds", "≤", 1.5, rsync),) if count == 100 else (Target("seconds", "≤", 1.0),)
        for kind in ("plain", "frames"):
            nodes = fetching.serve(place, place.stack, publisher, 1, transport=kind)
            fetch = fetching.fetch(place, revision, nodes, transport=kind)
            found.append(Row(CASE, f"p2phub {kind}, {count} files", fetch, targets=targets))
            through = fetching.fetch_through_node(place, revision, nodes, transport=kind)
            found.append(Row(CASE, f"p2phub {kind} through a node, {count} files", through, targets=targets))
        found += other_rows(place, source, count)
    for row in found:
        row.amount = int(row.name.split()[-2]) * FILE_SIZE
    return found


def files(place: Workplace, count: int) -> Path:
    """Return a new folder with `count` small files of random bytes."""
    folder = place.new("files")
    folder.mkdir()
    rng = random.Random(count)
    for number in range(count):
        (folder / f"{number:04}.bin").write_bytes(rng.randbytes(FILE_SIZE))
    return folder


def other_rows(place: Workplace, source: Path, count: int) -> Iterator[Row]:
    """Give the rows of what is installed of the others."""
    words = f"{count} files"
    paths = sorted(source.iterdir())
    names = [path.name for path in paths]

    def run(command: list[str], server: others.Server) -> Sample:
        sample = run_command(command, clean_environment(), output=place.output, serving=[server.pid])
        if any((place.target / path.name).read_bytes() != path.read_bytes() for path in paths):
            raise Failure(f"`{' '.join(command)}` brought other bytes")
        return sample

    with place.optional("rsync daemon"):
        daemon = others.start_rsync(place, place.stack, source)
        yield Row(CASE, f"rsync daemon, {words}", partial(run, others.rsync(daemon, "", place.target), daemon))
        durable = others.rsync(daemon, "", place.target, "--fsync")
        yield Row(CASE, f"rsync daemon --fsync, {words}", partial(run, durable, daemon))
    with place.optional("aria2c and rclone"):
        web = others.start_nginx(place, place.stack, source)
        hashed = partial(others.then_hash_all, target=place.target)
        with place.optional("aria2c + b3sum"):
            command = others.aria2_list(web, names, place.target, place.new("list"))
            yield Row(CASE, f"aria2c + b3sum, {words}", partial(run, hashed(command), web))
        with place.optional("rclone + b3sum"):
            command = others.rclone(web, place.target)
            yield Row(CASE, f"rclone + b3sum, {words}", partial(run, hashed(command), web))
