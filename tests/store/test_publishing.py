from __future__ import annotations

from pathlib import Path

from p2phub.core.gates import Receipt, SignedReceipt
from p2phub.core.identity import PublishKeys
from p2phub.core.ids import NamespaceId, NodeId
from p2phub.store.layout import Layout
from p2phub.store.publishing import Publishing
from p2phub.store.store import Store
from p2phub.testing import values

NODE = NodeId(values.key("node").public_key)


def keys_of(name: str, version: int = 1) -> PublishKeys:
    keys = tuple(values.key(f"{name} {version} {number}").public_key for number in range(3))
    return PublishKeys(values.identity(name).namespace, version, keys)


def accept(store: Store, namespace: NamespaceId) -> None:
    """Let a publisher matter: he accepted what a gate asks for."""
    store.gates.keep(SignedReceipt(Receipt(1, bytes(32), bytes(32), namespace, values.TIME), bytes(namespace)), NODE)


def test_the_newest_keys_of_those_who_matter_are_kept(tmp_path: Path) -> None:
    with Store(Layout(tmp_path, tmp_path / "store")) as store:
        store.publishing.note(keys_of("ann"))
        assert store.publishing.get(keys_of("ann").namespace) is None

        accept(store, keys_of("ann").namespace)
        for version in (2, 1, 3, 2):
            store.publishing.note(keys_of("ann", version))
        assert store.publishing.get(keys_of("ann").namespace) == keys_of("ann", 3)


def test_of_too_many_some_go_and_never_the_one_that_came_last(tmp_path: Path) -> None:
    with Store(Layout(tmp_path, tmp_path / "store")) as store:
        publishing = Publishing(store.database, publishers_max=4)
        names = [f"publisher {number}" for number in range(7)]
        for name in names:
            accept(store, keys_of(name).namespace)
            publishing.note(keys_of(name))
            assert publishing.get(keys_of(name).namespace)
        assert sum(publishing.get(keys_of(name).namespace) is not None for name in names) <= 4
