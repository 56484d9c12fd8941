"""Memory of either side stays flat: with a very large file, and with many connections."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from .. import fetching, others
from ..measuring import Row, Sample, Target
from ..nodes import P2PHUB, Node, clean_environment, peer_options
from ..usage import run_command
from ..workplace import Workplace

CASE = "memory"
SHORT, FULL = 2**30, 2**34  # bytes
SIZE_MANY = 2**29  # bytes at most, of the rows with many connections
PROVIDERS = 16  # of one node, which is as many as it uses at once, with a connection to each
FETCHERS = 6  # of one provider, with three connections each
FLAT = (Target("peak", "≤", 100e6), Target("serving_peak", "≤", 100e6))


def rows(place: Workplace) -> list[Row]:
    """Return a row for the large file and two for many connections, on either side."""
    size = place.size(SHORT, FULL)
    large = place.model(size)
    file = large / "model.safetensors"
    # In place, so that a very large file is on the disk once less.
    publisher, revision = place.publisher(large, "--in-place")
    node = fetching.serve(place, place.stack, publisher, 1)
    server = others.start_limit(place, place.stack, file, "frames")
    limit = others.limit_fetch(server, place.target / "file", file.stat().st_size, "frames")
    small = place.model(min(size, SIZE_MANY))
    many_publisher, many = place.publisher(small)
    amount = (small / "model.safetensors").stat().st_size
    nodes = fetching.serve(place, place.stack, many_publisher, PROVIDERS)
    return [
        Row(
            CASE,
            "limit, frames",
            lambda: run_command(limit, clean_environment(), output=place.output, serving=[server.pid]),
            file.stat().st_size,
        ),
        Row(
            CASE,
            f"1 → 1, {size / 2**30:g} GiB",
            fetching.fetch(place, revision, node),
            file.stat().st_size,
            targets=(*FLAT, Target("cpu_per_gb", "≤", 1.3, "limit, frames")),
        ),
        Row(CASE, "16 connections to 16 providers", fetching.fetch(place, many, nodes), amount, targets=FLAT),
        Row(
            CASE,
            "18 connections of 6 nodes",
            fetch_at_once(place, many, nodes[0]),
            amount,
            copies=FETCHERS,
            targets=FLAT,
        ),
    ]


def fetch_at_once(place: Workplace, revision: str, provider: Node) -> Callable[[], Sample]:
    """Return what fetches from one provider into several homes at the same time."""
    fetch = shlex.join([P2PHUB, "fetch", revision, "--json", *peer_options([provider.address])])
    numbers = " ".join(map(str, range(FETCHERS)))
    each = f"P2PHUB_HOME={shlex.quote(str(place.target))}/$0 exec {fetch}"
    # xargs says when one of them failed, which `wait` of a shell does not.
    command = f"printf '%s\\n' {numbers} | xargs --max-procs={FETCHERS} --max-args=1 sh -c {shlex.quote(each)}"
    return lambda: run_command(["sh", "-c", command], clean_environment(), output=place.output, serving=[provider.pid])
