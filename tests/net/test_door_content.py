"""The peer door sends content, and whoever takes it too slowly is let go."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import trio
from callerkit import CONTENTS, MIB, PARTS, WAYS, on_connection
from msgspec.structs import replace
from netkit import Caller, Files, echo, in_thread, open_below, open_door, wait_until

from p2phub.net import channels, receivers
from p2phub.net.door import Request, Response
from p2phub.testing import values


@WAYS
async def test_parts_of_files_are_sent_one_after_the_other(tmp_path: Path, plain: bool) -> None:
    files = Files(tmp_path, CONTENTS, PARTS)

    def talk(caller: Caller) -> None:
        for _ in range(2):
            answer = caller.ask()
            assert answer.headers["content-length"] == str(len(files.expected))
            assert answer.body == files.expected

    async with open_door(files, plain=plain) as port:
        await in_thread(on_connection, port, plain, talk)

    assert files.released == 2
    assert open_below(tmp_path) == []


@WAYS
@pytest.mark.parametrize("shrinks", ["before", "meanwhile"])
async def test_a_file_that_shrinks_while_it_is_sent_ends_the_answer(tmp_path: Path, plain: bool, shrinks: str) -> None:
    """Rather nothing than bytes that were never there."""
    size = 30 * MIB
    files = Files(tmp_path, {"file": values.content("file", size)}, [("file", 0, size)])

    async def handler(request: Request) -> Response:
        response = await files(request)
        if shrinks == "before":
            os.truncate(tmp_path / "file", size // 2)
        return response

    def talk(caller: Caller) -> bytes:
        caller.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        begin = caller.socket.recv(1000)
        if shrinks == "meanwhile":
            os.truncate(tmp_path / "file", size // 2)
        return begin + caller.rest()

    async with open_door(handler, plain=plain) as port:
        data = await in_thread(on_connection, port, plain, talk, receive_buffer=64 * 1024)
        head, _, body = data.partition(b"\r\n\r\n")
        assert f"content-length: {size}".encode() in head.lower()
        assert len(body) < size
        assert body == files.contents["file"][: len(body)]
        await wait_until(lambda: open_below(tmp_path) == [], "the door to close the file")
        assert (await in_thread(on_connection, port, plain, lambda caller: caller.ask(method="HEAD"))).status == 200
    assert files.released == 2


@WAYS
@pytest.mark.parametrize("how", ["vanish", "close"])
async def test_files_are_closed_when_the_client_goes_in_the_middle(
    tmp_path: Path, plain: bool, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    size = 30 * MIB
    files = Files(tmp_path, {"file": bytes(size)}, [("file", 0, size)])

    def talk(port: int) -> None:
        for _ in range(3):
            caller = Caller(port, plain=plain, receive_buffer=64 * 1024)
            caller.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert caller.socket.recv(1000)
            caller.vanish() if how == "vanish" else caller.socket.close()

    async with open_door(files, plain=plain) as port:
        await in_thread(talk, port)
        await wait_until(lambda: files.released == 3, "the door to give up")
        assert open_below(tmp_path) == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@WAYS
async def test_who_reads_nothing_is_cut_off_and_blocks_nobody(
    tmp_path: Path, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 30 * MIB
    files = Files(tmp_path, {"file": bytes(size)}, [("file", 0, size)])

    async def handler(request: Request) -> Response:
        return await (files(request) if request.path == "/file" else echo(request))

    def deaf(port: int, count: int) -> list[Caller]:
        callers = [Caller(port, plain=plain, receive_buffer=4096) for _ in range(count)]
        for caller in callers:
            caller.send(b"GET /file HTTP/1.1\r\nhost: x\r\n\r\n")
        return callers

    async with open_door(handler, plain=plain) as port:
        callers = await in_thread(deaf, port, 10)
        await wait_until(lambda: len(open_below(tmp_path)) == 10, "ten answers to begin")
        # Others are served: what is small, and content too.
        assert (await in_thread(on_connection, port, plain, lambda caller: caller.ask("/other"))).status == 200
        whole = await in_thread(on_connection, port, plain, lambda caller: caller.ask("/file"))
        assert len(whole.body) == size
        monkeypatch.setattr(channels, "SEND_TIMEOUT_S", 0.3)
        callers += await in_thread(deaf, port, 3)
        await wait_until(lambda: files.released >= 4, "the door to lose patience with three")
        for caller in callers:
            caller.socket.close()
        await wait_until(lambda: files.released == 14, "the door to give up")
    assert open_below(tmp_path) == []


@WAYS
async def test_who_takes_it_slowly_is_cut_off_once_others_wait(
    tmp_path: Path, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receivers, "RECEIVER_WINDOW_S", 0.3)
    files = Files(tmp_path, {"file": bytes(30 * MIB)}, [("file", 0, 30 * MIB)])
    others_wait = False

    async def handler(request: Request) -> Response:
        return replace(await files(request), others_wait=lambda: others_wait)

    def slow(port: int) -> Caller:
        caller = Caller(port, plain=plain, receive_buffer=4096)
        return caller.send(b"GET /file HTTP/1.1\r\nhost: x\r\n\r\n")

    async with open_door(handler, plain=plain) as port:
        caller = await in_thread(slow, port)
        await trio.sleep(1.0)
        assert files.released == 0
        others_wait = True
        await wait_until(lambda: files.released == 1, "the door to cut it off")
        caller.socket.close()
    assert open_below(tmp_path) == []


@WAYS
async def test_closing_the_door_ends_answers_and_closes_files(tmp_path: Path, plain: bool) -> None:
    size = 30 * MIB
    files = Files(tmp_path, {"file": bytes(size)}, [("file", 0, size)])
    callers: list[Caller] = []

    def begin(port: int) -> None:
        caller = Caller(port, plain=plain, receive_buffer=4096)
        caller.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert caller.socket.recv(1)
        callers.append(caller)

    with trio.fail_after(30):
        async with open_door(files, plain=plain) as port:
            for _ in range(3):
                await in_thread(begin, port)
    assert open_below(tmp_path) == []
    assert files.released == 3
    for caller in callers:
        await in_thread(caller.rest)
        caller.socket.close()
