from __future__ import annotations

import pytest
from storekit import open_store

from p2phub.core.errors import StoreError
from p2phub.core.limits import Limit, LinkSettings
from p2phub.store.store import Store

FAST = LinkSettings(limits=(Limit("internet", up=1_000_000),))


def test_a_setting_that_was_never_made_is_none(store: Store) -> None:
    assert store.settings.get("links", LinkSettings) is None


def test_a_setting_outlives_the_store_and_a_rebuild(tmp_path) -> None:
    with open_store(tmp_path) as store:
        assert store.settings.change("links", LinkSettings, lambda old: FAST) == FAST
    with open_store(tmp_path) as store:
        store.rebuild(lambda text: None)
        assert store.settings.get("links", LinkSettings) == FAST
        assert store.settings.get("other", LinkSettings) is None


def test_a_change_is_told_what_was_there(store: Store) -> None:
    store.settings.change("links", LinkSettings, lambda old: FAST)
    seen = []
    store.settings.change("links", LinkSettings, lambda old: seen.append(old) or LinkSettings())

    assert seen == [FAST]
    assert store.settings.get("links", LinkSettings) == LinkSettings()


def test_a_change_that_fails_changes_nothing(store: Store) -> None:
    store.settings.change("links", LinkSettings, lambda old: FAST)
    with pytest.raises(ZeroDivisionError):
        store.settings.change("links", LinkSettings, lambda old: 1 // 0)

    assert store.settings.get("links", LinkSettings) == FAST


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"limits": [{"link": "moon"}]}', '{"limits": [{"link": "lan", "up": 1}]}']
)
def test_what_cannot_be_read_is_named(store: Store, text: str) -> None:
    with store.database.write() as connection:
        connection.execute("INSERT INTO settings (name, value) VALUES ('links', ?)", (text,))

    with pytest.raises(StoreError, match="'links'"):
        store.settings.get("links", LinkSettings)
