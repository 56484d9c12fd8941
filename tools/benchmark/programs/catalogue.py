"""Make up a catalogue, take it over, and run a node that takes more over while it answers.

    catalogue.py make FILE RECORDS SEED PART PARTS        logs of made-up publishers, one after the other
    catalogue.py take HOME FILE...                        into the store of HOME; prints what it cost as JSON
    catalogue.py node HOME FILE RATE ARGUMENT...          `p2phub node ARGUMENT...` with so many records a second

A file holds, for each log, the identity's chain, the head and the entries, as msgpack after its length.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from p2phub.cli.main import tune_process
from p2phub.core.checkpoint import parse_head
from p2phub.core.encoding import decode, encode, prepare_types
from p2phub.node.pulling import PAGES_IN_HAND
from p2phub.protocol.messages import IdentityChain
from p2phub.store.layout import Layout
from p2phub.store.logs import IDENTITY_SIZE_MAX, LogPart
from p2phub.store.store import Store
from p2phub.testing.releases import make_logs

RECORDS_AT_ONCE = 2048  # about what a pull hands over
SIGNED_BYTES = 800  # about those of a record
SIGNATURES_S = 2.0  # seconds for which signatures alone are checked
LENGTH = struct.Struct(">I")

Packed = tuple[bytes, bytes, list[bytes]]


def main() -> None:
    match sys.argv[1:]:
        case ["make", file, records, seed, part, parts]:
            make(Path(file), int(records), int(seed), int(part), int(parts))
        case ["take", home, *files]:
            print(json.dumps(take(Path(home), [Path(file) for file in files])))
        case ["node", home, file, rate, *arguments]:
            threading.excepthook = lambda failure: os._exit(1)
            threading.Thread(target=feed, args=(Path(home), Path(file), float(rate)), daemon=True).start()
            run_node(arguments)
        case _:
            sys.exit(__doc__)


def make(path: Path, records: int, seed: int, part: int, parts: int) -> None:
    """Write the logs of one part of a made-up catalogue."""
    with open(path.with_suffix(".part"), "wb") as file:
        for log in make_logs(records, seed=seed, part=part, parts=parts):
            chain = encode(IdentityChain(log.identity.chain))
            data = msgspec.msgpack.encode((chain, log.head.text, log.data))
            file.write(LENGTH.pack(len(data)) + data)
    path.with_suffix(".part").rename(path)


def read(path: Path) -> Iterator[Packed]:
    """Yield the logs in a file."""
    with open(path, "rb") as file:
        while head := file.read(LENGTH.size):
            yield msgspec.msgpack.decode(file.read(*LENGTH.unpack(head)), type=Packed)


def batches(logs: Iterator[Packed], size: int) -> Iterator[list[Packed]]:
    """Yield logs that together have about `size` records."""
    batch: list[Packed] = []
    count = 0
    for log in logs:
        batch.append(log)
        count += len(log[2])
        if count >= size:
            yield batch
            batch, count = [], 0
    if batch:
        yield batch


class Shared:
    """Batches that several threads go through together: each gets the next one."""

    def __init__(self, batches: Iterator[list[Packed]]) -> None:
        self._batches = batches
        self._lock = threading.Lock()

    def __iter__(self) -> Shared:
        return self

    def __next__(self) -> list[Packed]:
        with self._lock:
            return next(self._batches)


def take(home: Path, files: Sequence[Path]) -> dict[str, float]:
    """Take all logs over, each file as from a peer of its own; returns seconds, records, and the peak of memory.

    signature_rate: how many signatures one core checks a second, before and after: how fast the machine is now.
    """
    tune_process()
    prepare_types()
    # A pull has a few pages of each peer in hand.
    sources = [Shared(batches(read(file), RECORDS_AT_ONCE)) for file in files] * PAGES_IN_HAND
    before = signature_rate()
    begun = resource.getrusage(resource.RUSAGE_SELF)
    with Store(layout(home)) as store, ThreadPoolExecutor(len(sources)) as pool:
        start = time.monotonic()
        records = sum(pool.map(lambda source: sum(taken(store, batch) for batch in source), sources))
        # As a node does that runs; it is part of the cost.
        deque(store.index.merge(), maxlen=0)
        seconds = time.monotonic() - start
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu = usage.ru_utime + usage.ru_stime - begun.ru_utime - begun.ru_stime
    signatures = (before + signature_rate()) / 2
    return {
        "seconds": seconds,
        "records": records,
        "peak": usage.ru_maxrss * 1024.0,
        "cpu": cpu,
        "signature_rate": signatures,
        "records_a_signature": records / seconds / signatures,
    }


def signature_rate() -> float:
    """Return how many Ed25519 signatures a second `cryptography` checks with one core while nothing else runs."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    signed = [(message := os.urandom(SIGNED_BYTES), key.sign(message)) for _ in range(100)]
    begun, count = time.monotonic(), 0
    while time.monotonic() < begun + SIGNATURES_S:
        for message, signature in signed:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        count += len(signed)
    return count / (time.monotonic() - begun)


def feed(home: Path, file: Path, rate: float) -> None:
    """Take logs over at a steady rate, until there are no more."""
    with Store(layout(home)) as store:
        start, records = time.monotonic(), 0
        for batch in batches(read(file), max(1, int(rate / 2))):
            records += taken(store, batch)
            time.sleep(max(0.0, start + records / rate - time.monotonic()))


def taken(store: Store, batch: list[Packed]) -> int:
    """Take logs over as a pull does: first the identities are checked, then what they prove."""
    chains = [decode(chain, IdentityChain, size_max=IDENTITY_SIZE_MAX) for chain, _, _ in batch]
    parts = []
    for identity, (_, note, entries) in zip(store.logs.open_identities(chains), batch, strict=True):
        if isinstance(identity, Exception):
            raise identity
        head = parse_head(note)
        parts.append(LogPart(identity, head.log, head, 0, tuple(entries)))
    outcomes = store.logs.extend_many(parts, now=time.time())
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return sum(outcome for outcome in outcomes if isinstance(outcome, int))


def run_node(arguments: Sequence[str]) -> None:
    from p2phub.cli.main import entry

    sys.argv = ["p2phub", "node", *arguments]
    entry()


def layout(home: Path) -> Layout:
    return Layout(home, home / "store")


if __name__ == "__main__":
    main()
