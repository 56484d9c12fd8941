from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from p2phub.core.errors import PeerUnreachable
from p2phub.core.ids import NodeId
from p2phub.net.peerclient import PeerClient
from p2phub.node import calls as module
from p2phub.node.calling import call_peer
from p2phub.node.calls import Call, Calls
from p2phub.node.events import ignore
from p2phub.node.fetch import fetch
from p2phub.protocol.messages import ReconcileQuery
from p2phub.store.peers import Peer
from p2phub.testing import values
from p2phub.testing.hostile import counting, open_home, serving

HERE = [("127.0.0.1", 1)]


async def the_peer(node) -> Peer:
    (peer,) = node.store.peers.all()
    return peer


async def test_a_fetch_greets_its_peer_once_and_asks_for_news_once(published, copy_of, tmp_path: Path) -> None:
    asked: Counter[str] = Counter()
    async with (
        open_home(copy_of("seed")) as seed,
        open_home(tmp_path / "new") as new,
        serving(seed, wrap=counting(asked)) as address,
    ):
        new.store.peers.add(address)
        await fetch(new, f"{published.name}@1.0.0", ignore, to=tmp_path / "out")

    assert asked["/v1/hello"] == 1
    assert asked["/v1/reconcile"] == 1


async def test_a_peer_that_came_back_elsewhere_is_called_there(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    asked: Counter[str] = Counter()
    async with open_home(copy_of("seed")) as seed, open_home(tmp_path / "new") as new:
        async with serving(seed) as address:
            new.store.peers.add(address)
            async with call_peer(new, await the_peer(new)) as client:
                await client.reconcile(ReconcileQuery(bytes(32)))
        async with serving(seed, wrap=counting(asked)) as address:
            new.store.peers.add(address)
            with pytest.raises(PeerUnreachable):
                async with call_peer(new, await the_peer(new)) as client:
                    await client.reconcile(ReconcileQuery(bytes(32)))
            async with call_peer(new, await the_peer(new)) as client:
                await client.reconcile(ReconcileQuery(bytes(32)))

    assert asked["/v1/reconcile"] == 1


async def test_a_peer_that_was_greeted_long_ago_is_greeted_again(
    copy_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GREET_S", 0.0)
    asked: Counter[str] = Counter()
    async with (
        open_home(copy_of("seed")) as seed,
        open_home(tmp_path / "new") as new,
        serving(seed, wrap=counting(asked)) as address,
    ):
        new.store.peers.add(address)
        for _ in range(3):
            async with call_peer(new, await the_peer(new)):
                pass

    assert asked["/v1/hello"] == 3


def call(number: int = 0) -> Call:
    now = trio.current_time()
    return Call(PeerClient(NodeId(number.to_bytes(32, "big")), *HERE[0]), greeted=now, used=now)


async def test_what_nobody_uses_is_kept_for_a_while(autojump_clock: trio.testing.MockClock) -> None:
    calls, old, new = Calls(values.key("node"), lambda: 0.0), call(0), call(1)
    with calls.use(old):
        pass
    await trio.sleep(module.KEEP_S - 1)
    with calls.use(new):
        pass
    kept = calls.find(old.client.node, HERE)
    await trio.sleep(2)
    with calls.use(new):
        pass

    assert kept is old
    assert calls.find(old.client.node, HERE) is None
    assert calls.find(new.client.node, HERE) is new


async def test_what_somebody_uses_is_kept(autojump_clock: trio.testing.MockClock) -> None:
    calls, old, new = Calls(values.key("node"), lambda: 0.0), call(0), call(1)
    with calls.use(old):
        await trio.sleep(2 * module.KEEP_S)
        with calls.use(new):
            pass

        assert calls.find(old.client.node, HERE) is old


async def test_only_so_many_are_kept() -> None:
    calls = Calls(values.key("node"), lambda: 0.0)
    for number in range(module.KEPT_MAX + 10):
        with calls.use(call(number)):
            await trio.lowlevel.checkpoint()

    kept = [number for number in range(module.KEPT_MAX + 10) if calls.find(NodeId(number.to_bytes(32, "big")), HERE)]
    assert kept == list(range(10, module.KEPT_MAX + 10))


async def test_a_client_of_another_endpoint_is_not_taken() -> None:
    calls, kept = Calls(values.key("node"), lambda: 0.0), call()
    with calls.use(kept):
        pass

    assert calls.find(kept.client.node, [("127.0.0.1", 2)]) is None
