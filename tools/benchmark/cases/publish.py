"""Publish a large file, and verify it again: beside copying and hashing it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .. import others
from ..measuring import Row, Sample
from ..nodes import P2PHUB, clean_environment, environment_of
from ..usage import run_command
from ..workplace import Workplace

CASE = "publish"
SHORT, FULL = 2**29, 2**31  # bytes


def rows(place: Workplace) -> list[Row]:
    """Return the rows; the reference is what reads, writes and hashes the same bytes."""
    source = place.model(place.size(SHORT, FULL))
    file = source / "model.safetensors"
    publisher, revision = place.publisher(source)
    amount = file.stat().st_size

    def run(command: list[str], environment: Mapping[str, str]) -> Callable[[], Sample]:
        return lambda: run_command(command, environment, output=place.output)

    def publish(*options: str) -> Callable[[], Sample]:
        def run() -> Sample:
            place.p2phub(place.target, "id", "new")
            command = [P2PHUB, "publish", str(source), "bench", *options]
            return run_command(command, environment_of(place.target), output=place.output)

        return run

    copy = others.then_hash(["cp", str(file), str(place.target / "copy")], place.target / "copy")
    return [
        Row(CASE, "cp + b3sum", run(copy, clean_environment()), amount),
        Row(CASE, "p2phub publish", publish(), amount),
        Row(CASE, "p2phub publish --in-place", publish("--in-place"), amount),
        Row(CASE, "b3sum", run([*others.hash_command(), str(file)], clean_environment()), amount),
        Row(CASE, "p2phub verify", run([P2PHUB, "verify", revision], environment_of(publisher)), amount),
    ]
