"""The made-up catalogue that tests and benchmarks share."""

from __future__ import annotations

from collections import Counter

from p2phub.core.checkpoint import open_head
from p2phub.core.identity import open_identity
from p2phub.core.merkle import LOG_TREE, root
from p2phub.core.records import NO_PREVIOUS, Publish, open_entry
from p2phub.testing.releases import END, log_sizes, make_log, make_logs


def test_every_made_log_is_proven_by_its_identity_and_head() -> None:
    for log in make_logs(300):
        identity = open_identity(log.identity.chain)
        previous, time = NO_PREVIOUS, 0
        for index, data in enumerate(log.data):
            entry = open_entry(
                data, namespace=identity.namespace, key=log.key.public_key, index=index, previous=previous
            )
            assert entry == log.entries[index]
            assert time <= entry.record.time <= END
            previous, time = entry.leaf, entry.record.time
        head = open_head(log.head.text, log=log.head.log, key=identity.logs[log.head.log])
        assert (head.size, head.root) == (len(log.data), root(LOG_TREE, [entry.leaf for entry in log.entries]))


def test_parts_make_the_same_catalogue_as_the_whole() -> None:
    whole = {log.number: log.data for log in make_logs(300, seed=5)}
    parts = {log.number: log.data for part in range(3) for log in make_logs(300, seed=5, part=part, parts=3)}

    assert parts == whole
    assert sum(map(len, whole.values())) == sum(log_sizes(300, seed=5)) == 300
    assert not set(map(tuple, whole.values())) & {tuple(log.data) for log in make_logs(300, seed=6)}


def test_a_longer_log_begins_with_the_shorter_one() -> None:
    assert make_log(4, 40).data[:9] == make_log(4, 9).data


def test_it_reads_like_a_hub() -> None:
    records = [entry.record for log in make_logs(3000) for entry in log.entries]
    releases = [record for record in records if isinstance(record, Publish)]
    words = Counter(word for release in releases for word in set(release.summary.excerpt.lower().split()))
    repositories = {(release.namespace, release.model) for release in releases}

    assert 700 < sum(len(entry.data) for log in make_logs(300) for entry in log.entries) / 300 < 1100
    assert words["model"] > 0.3 * len(releases)
    assert sum(1 for count in words.values() if count == 1) > len(words) / 3
    assert 0.7 < len(repositories) / len(releases) < 0.95
    assert {type(record).__name__ for record in records} == {"Publish", "Branch", "Yank"}
    assert any(release.summary.scores for release in releases)
