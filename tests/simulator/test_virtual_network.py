"""The simulated network carries TCP as programs see it, and fails as networks do."""

from __future__ import annotations

import os
from functools import partial

import pytest
import trio
import trio.testing

from p2phub.core.ids import NodeId
from p2phub.core.signing import SigningKey
from p2phub.net.channels import FilePart
from p2phub.net.door import Response, serve_peers
from p2phub.net.http import HttpClient, NoAnswer
from p2phub.net.tls import client_context, server_context
from p2phub.protocol.messages import LARGE_QUERY_SIZE_MAX
from p2phub.testing.simulator.network import GIVE_UP_S, WINDOW_SIZE, Network, Weather
from p2phub.testing.simulator.sockets import Sockets, on_host

STILL = Weather(loss=0.0, jitter=0.0)
PORT = 7


def run(scenario, weather=STILL, seed="1"):
    """Run `scenario(network, here, there, nursery)` with two hosts."""
    notes = []

    async def main():
        network = Network(weather, seed, lambda host, text: notes.append((host.name, text)))
        sockets = Sockets(network)
        trio.socket.set_custom_socket_factory(sockets)
        trio.socket.set_custom_hostname_resolver(sockets)
        here, there = network.add_host("here", "192.0.2.1"), network.add_host("there", "192.0.2.2")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(network.clockwork.run)
            result = await scenario(network, here, there, nursery)
            nursery.cancel_scope.cancel()
        return result

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def serve(nursery, host, handler):
    with on_host(host):
        (listener,) = await trio.open_tcp_listeners(PORT, host=host.address)
        nursery.start_soon(trio.serve_listeners, handler, [listener])


async def call(host, address):
    with on_host(host):
        return await trio.open_tcp_stream(address, PORT)


async def echo(stream):
    async for data in stream:
        await stream.send_all(data)
    await stream.aclose()


async def collect(stream):
    return b"".join([bytes(piece) async for piece in stream])


@pytest.mark.parametrize("loss", [0.0, 0.3])
def test_bytes_arrive_whole_and_in_order_whatever_is_lost(loss):
    sent = bytes(range(256)) * 5000

    async def scenario(network, here, there, nursery):
        await serve(nursery, there, echo)
        stream = await call(here, there.address)
        received = []

        async def receive():
            received.append(await collect(stream))

        async with trio.open_nursery() as inner:
            inner.start_soon(receive)
            for at in range(0, len(sent), 10_000):
                await stream.send_all(sent[at : at + 10_000])
            await stream.send_eof()
        return received[0]

    assert run(scenario, Weather(loss=loss)) == sent


def test_a_question_and_its_answer_take_one_round_trip_and_a_loss_costs_more():
    async def scenario(network, here, there, nursery):
        await serve(nursery, there, echo)
        stream = await call(here, there.address)
        begun = trio.current_time()
        await stream.send_all(b"?")
        await stream.receive_some(1)
        return trio.current_time() - begun, 2 * network.latency_s(here, there)

    took_s, round_trip_s = run(scenario)
    slow = [run(scenario, Weather(jitter=0.0, loss=0.5), str(seed))[0] for seed in range(20)]

    assert took_s == pytest.approx(round_trip_s, abs=0.01)
    assert 0.04 <= round_trip_s <= 0.4
    assert sum(slow) / len(slow) > 0.4


def test_where_nobody_listens_or_no_host_is_a_call_fails():
    async def scenario(network, here, there, nursery):
        with pytest.raises(OSError, match="all attempts") as refused:
            await call(here, there.address)
        with pytest.raises(OSError, match="all attempts") as nowhere:
            await call(here, "192.0.2.99")
        return [str(error.value.__cause__.exceptions[0]) for error in (refused, nowhere)]

    texts = run(scenario)

    assert "Connection refused" in texts[0]
    assert "unreachable" in texts[1]


def test_what_was_sent_into_a_cut_arrives_after_it_heals():
    async def scenario(network, here, there, nursery):
        await serve(nursery, there, echo)
        stream = await call(here, there.address)
        network.cut([[here], [there]])
        await stream.send_all(b"hello")
        with trio.move_on_after(60):
            await stream.receive_some(1)
            raise AssertionError("it went through a cut")
        healed = trio.current_time()
        network.heal()
        return await stream.receive_some(10), trio.current_time() - healed

    data, took_s = run(scenario)

    assert data == b"hello"
    assert took_s < 62  # the sender tries less and less often, at least each minute


def test_a_connection_that_stays_cut_ends_with_an_error_at_last():
    async def scenario(network, here, there, nursery):
        await serve(nursery, there, echo)
        stream = await call(here, there.address)
        network.cut([[here], [there]])
        await stream.send_all(b"hello")
        with pytest.raises(trio.BrokenResourceError, match="timed out"):
            await stream.receive_some(1)
        return trio.current_time()

    assert run(scenario) > GIVE_UP_S


def test_a_call_into_a_cut_waits_until_it_heals():
    async def scenario(network, here, there, nursery):
        await serve(nursery, there, echo)
        network.cut([[here], [there]])
        with trio.move_on_after(10) as waiting:
            await call(here, there.address)
        network.heal()
        await call(here, there.address)
        return waiting.cancelled_caught

    assert run(scenario)


def test_a_killed_host_resets_its_connections_and_one_that_vanishes_says_nothing():
    async def scenario(network, here, there, nursery):
        await serve(nursery, there, echo)
        killed, silent = await call(here, there.address), await call(here, there.address)
        network.unplug(there)
        with trio.move_on_after(30) as waiting:
            await silent.receive_some(1)
        network.plug(there)
        network.crash(there)
        with pytest.raises(trio.BrokenResourceError, match="reset by peer"):
            await killed.receive_some(1)
        return waiting.cancelled_caught

    assert run(scenario)


def test_who_does_not_read_stops_the_sender():
    async def scenario(network, here, there, nursery):
        async def sleep(stream):
            await trio.sleep_forever()

        await serve(nursery, there, sleep)
        stream = await call(here, there.address)
        with trio.move_on_after(100) as waiting:
            await stream.send_all(bytes(4 * WINDOW_SIZE))
        return waiting.cancelled_caught, there.received

    stopped, received = run(scenario)

    assert stopped
    assert received == WINDOW_SIZE


def test_closing_with_bytes_unread_resets_the_connection():
    async def scenario(network, here, there, nursery):
        async def close(stream):
            await trio.sleep(1)
            await stream.aclose()

        await serve(nursery, there, close)
        stream = await call(here, there.address)
        await stream.send_all(b"unread")
        with pytest.raises(trio.BrokenResourceError, match="reset by peer"):
            await stream.receive_some(1)

    run(scenario)


def test_a_task_of_no_host_cannot_reach_the_network():
    async def scenario(network, here, there, nursery):
        with pytest.raises(RuntimeError, match="no simulated host"):
            trio.socket.socket()

    run(scenario)


@pytest.mark.parametrize("tls", [False, True])
def test_the_peer_door_answers_with_bytes_with_files_and_with_refusals(tmp_path, tls):
    key = SigningKey(bytes(32))
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 4000)

    def opened():
        return os.open(file, os.O_RDONLY)

    async def answer(request):
        if request.path == "/short":
            return Response(200, [FilePart(opened, 2_000_000, 100)])
        parts = [FilePart(opened, 5, 700_000), FilePart(opened, 0, 5)]
        return Response(200, parts if request.path == "/file" else b"hi")

    async def scenario(network, here, there, nursery):
        with on_host(there):
            await nursery.start(
                partial(serve_peers, there.address, PORT, answer, tls=server_context(key) if tls else None)
            )
        with on_host(here):
            context = client_context(NodeId(key.public_key)) if tls else None
            client = HttpClient(there.address, PORT, context)
            bodies = [
                (await client.ask("GET", path, {}, b"", size_max=2**20)).body for path in ("/bytes", "/file", "/bytes")
            ]
            with pytest.raises(NoAnswer):
                await client.ask("GET", "/short", {}, b"", size_max=2**20)
            refused = await client.ask("POST", "/bytes", {}, bytes(LARGE_QUERY_SIZE_MAX + 1), size_max=2**20)
            client.close()
        return bodies, refused.status

    bodies, status = run(scenario)

    assert bodies == [b"hi", file.read_bytes()[5:700_005] + file.read_bytes()[:5], b"hi"]
    assert status == 413
