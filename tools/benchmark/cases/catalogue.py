"""A catalogue of many releases: how fast it is taken over, what it takes on disk, how fast it is searched.

Searches go through the control API of a node that takes over RATE records a second meanwhile. Words, names and
facets are those of releases that are there, drawn anew for each search.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from p2phub.core.records import Publish, Summary, read_entry
from p2phub.core.search import Query
from p2phub.core.words import words
from p2phub.gateway.client import Call, Daemon, find_daemon
from p2phub.node.operations import Operation
from p2phub.node.operations.catalogue import Search
from p2phub.node.operations.limits import ShowLimits
from p2phub.store.layout import Layout

from ..measuring import Failure, Row, Sample, Target, check_space
from ..nodes import environment_of, start, stop
from ..programs import catalogue as program
from ..workplace import Workplace, size_of

CASE = "catalogue"
SHORT, FULL = 100_000, 1_000_000  # records
# The same target as 4,000 a second, where one core checks 9,000 signatures a second: it holds on other machines too.
RECORDS_A_SIGNATURE = 0.444
RATE = 500  # records a second that come in meanwhile
FED_SECONDS = 240
BUSY_AT_FIRST_S = 120.0  # while a node with a large catalogue may answer late
SEARCHES = 300  # of each kind in a run
WARM_UP = 20  # that are not counted
SAMPLED = 20_000  # records that words are taken from
RECORD_BYTES = 2500  # on disk, about, with the files that it is taken from
PROGRAM = [sys.executable, "-m", "benchmark.programs.catalogue"]
LATENCY = (Target("p50", "≤", 5.0), Target("p99", "≤", 30.0))


def rows(place: Workplace) -> list[Row]:
    """Return a row for taking over, and one for each kind of search."""
    records = place.options.records or (FULL if place.options.full else SHORT)
    home, files, more, cost = made_home(place, records)
    kinds = Kinds(files[0])
    search = Searcher(place, home, more)
    title = f"{records:,} records"
    targets = (
        Target("records_rate", "≥", 4000),
        Target("records_a_signature", "≥", RECORDS_A_SIGNATURE),
        Target("record_bytes", "≤", 2000),
        Target("peak", "≤", 400e6),
    )
    taken = Row(CASE, f"take over {title}", lambda: cost, targets=targets, runs_max=1)
    nothing = Row(CASE, "the door alone", search.row(lambda rng: ShowLimits()))
    named = kinds.named()
    return [taken, nothing, *(Row(CASE, name, search.row(make), targets=LATENCY) for name, make in named.items())]


def made_home(place: Workplace, records: int) -> tuple[Path, list[Path], Path, Sample]:
    """Return a home with a catalogue of so many records, the files it was taken from, one with more, and the cost."""
    folder = place.options.keep or place.new("catalogue")
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"records-{records}-{part}" for part in range(2)]
    more = folder / "records-more"
    made = [["make", str(file), str(records), "1", str(part), "2"] for part, file in enumerate(files)]
    made.append(["make", str(more), str(RATE * FED_SECONDS), "2", "0", "1"])
    wanted = [arguments for arguments in made if not Path(arguments[1]).exists()]
    home, cost = folder / f"home-{records}", folder / f"cost-{records}.json"
    if wanted or not cost.exists():
        check_space(folder, records * RECORD_BYTES)
    with ExitStack() as stack:
        running = []
        for arguments in wanted:
            running.append(subprocess.Popen([*PROGRAM, *arguments], cwd=tools()))
            stack.callback(stop, running[-1])
        if any(process.wait() for process in running):
            raise Failure("the catalogue could not be made up")
    if not cost.exists():
        shutil.rmtree(home, ignore_errors=True)
        command = [*PROGRAM, "take", str(home), *map(str, files)]
        result = subprocess.run(command, cwd=tools(), capture_output=True, text=True, check=False)
        if result.returncode:
            raise Failure(f"taking the catalogue over ended with {result.returncode}: {result.stderr[-500:]}")
        sample = json.loads(result.stdout)
        count = sample.pop("records")
        index = sum(path.stat().st_size for path in home.glob("index.sqlite*"))
        sample |= {"records_rate": count / sample["seconds"], "record_bytes": size_of(home) / count}
        cost.write_text(json.dumps(sample | {"index_bytes": index / count}))
    return home, files, more, json.loads(cost.read_text())


class Searcher:
    """Asks a node that runs, and takes over more, as long as there is anything to measure."""

    def __init__(self, place: Workplace, home: Path, more: Path) -> None:
        self._place = place
        self._home = home
        self._more = more
        self._daemon: Daemon | None = None

    def row(self, make: Callable[[random.Random], Query | Operation]) -> Callable[[], Sample]:
        """Return a run of many operations, or searches, each of them made anew."""

        def run() -> Sample:
            daemon = self._started()
            rng = random.Random(time.time())
            durations = [self._ask(daemon, make(rng)) for _ in range(WARM_UP + SEARCHES)][WARM_UP:]
            durations.sort()
            return {
                "seconds": sum(durations),
                "p50": durations[len(durations) // 2] * 1000,
                "p99": durations[len(durations) * 99 // 100] * 1000,
            }

        return run

    def _ask(self, daemon: Daemon, made: Query | Operation) -> float:
        operation = Search(made) if isinstance(made, Query) else made
        begun = time.perf_counter()
        Call(daemon, operation, lambda event: None).run()
        return time.perf_counter() - begun

    def _started(self) -> Daemon:
        if self._daemon is None:
            home = self._place.new("home")
            # A copy, so that a kept one stays as it is.
            shutil.copytree(self._home, home)
            environment = {**environment_of(home), "PYTHONPATH": str(tools())}
            ready = home / "ready.json"
            doors = ["--listen", "127.0.0.1:0", "--local", "127.0.0.1:0", "--ready-file", str(ready)]
            command = [*PROGRAM, "node", str(home), str(self._more), str(RATE), *doors]
            start(self._place.stack, command, environment, home / "node.log", ready.exists)
            deadline = time.monotonic() + BUSY_AT_FIRST_S
            while self._daemon is None:
                if time.monotonic() > deadline:
                    raise Failure(f"the node does not answer: {(home / 'node.log').read_text()[-500:]}")
                self._daemon = find_daemon(Layout(home, home / "store"))
        return self._daemon


@dataclass(frozen=True)
class Release:
    """A release that is there, and what it says."""

    name: str
    kind: str
    summary: Summary
    words: list[str]


class Kinds:
    """Kinds of searches, each made of what some release says."""

    def __init__(self, file: Path) -> None:
        self._releases = list(islice(_releases(file), SAMPLED))
        count = Counter(word for release in self._releases for word in set(release.words))
        self._common = [word for word, _ in count.most_common(60)]
        self._rare = [word for word, seen in count.items() if seen <= 2]
        # Neither everywhere nor nearly nowhere, if there are such.
        few = max(10, len(self._releases) // 100)
        self._middle = [word for word, seen in count.items() if 3 <= seen <= few] or self._common

    def named(self) -> dict[str, Callable[[random.Random], Query]]:
        """Return how to make a search of each kind."""
        return {
            "exact name": lambda rng: Query(text=rng.choice(self._releases).name),
            "rare word": lambda rng: Query(text=rng.choice(self._rare)),
            "common word": lambda rng: Query(text=rng.choice(self._common)),
            "two words": self._two_words,
            "prefix": lambda rng: Query(text=rng.choice(self._middle)[: rng.randrange(3, 6)]),
            "word + three facets": self._with_facets,
            "facets only": lambda rng: self._facets(rng.choice(self._releases)),
            "facet counts, all": lambda rng: Query(facets=True, limit=0),
            "facet counts, a word": lambda rng: Query(text=rng.choice(self._common), facets=True, limit=0),
            "facet counts, facets": lambda rng: self._facets(rng.choice(self._releases), facets=True, limit=0),
            "sorted by size": lambda rng: Query(task=rng.choice(self._releases).summary.task, sort="size"),
        }

    def _two_words(self, rng: random.Random) -> Query:
        release = rng.choice(self._releases)
        return Query(text=" ".join(rng.sample(release.words, 2)) if len(release.words) > 1 else release.name)

    def _with_facets(self, rng: random.Random) -> Query:
        release = rng.choice(self._releases)
        return self._facets(release, text=rng.choice(release.words))

    def _facets(self, release: Release, **rest: object) -> Query:
        """Return a search for three facets that a release has."""
        summary = release.summary
        third = {"license": summary.license} if summary.license else {"languages": summary.languages}
        return Query(kind=release.kind, task=summary.task, **third, **rest)  # type: ignore[arg-type]


def _releases(file: Path) -> Iterator[Release]:
    for _, _, entries in program.read(file):
        for data in entries:
            record = read_entry(data).record
            if isinstance(record, Publish):
                text = f"{record.model} {record.summary.title} {record.summary.excerpt}"
                yield Release(record.model, record.kind, record.summary, words(text))


def tools() -> Path:
    return Path(__file__).parent.parent.parent
