"""What a request to the hub door says, taken apart with limits (spec/hub-api.md §1, §7)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes, urlencode

import msgspec
import trio
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from .errors import Refusal

BODY_SIZE_MAX = 16 * 1024 * 1024  # bytes of a body that is read at once
BODIES_SIZE_MAX = 128 * 1024 * 1024  # bytes of all bodies that are being read at once
BODY_GAP_S = 30.0  # seconds in which some of the body must come
FIELDS_MAX = 20_000  # of a query or form
PAGE_DEFAULT = 1000  # entries in a page, if the client says nothing

_held: trio.lowlevel.RunVar[int] = trio.lowlevel.RunVar("bytes_of_bodies")


def decode_part(raw: str) -> str:
    """Return the text of one part of a path. Raises Refusal if it is none."""
    try:
        text = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError as exc:
        raise Refusal(400, "the path is not UTF-8") from exc
    if "\0" in text:
        raise Refusal(400, "the path has a NUL")
    return text


def query_fields(request: Request) -> list[tuple[str, str]]:
    """Return the fields of the query, repeated ones as often as they are there. `x[]` is `x`."""
    return _fields(request.scope["query_string"])


def values(fields: list[tuple[str, str]], name: str) -> list[str]:
    """Return all values of a field."""
    return [value for key, value in fields if key == name]


def value(fields: list[tuple[str, str]], name: str) -> str | None:
    """Return the last value of a field, None if it is not there."""
    return next(iter(values(fields, name)[::-1]), None)


def is_true(fields: list[tuple[str, str]], name: str) -> bool:
    """Say whether a field is set to true."""
    return (value(fields, name) or "").lower() in ("true", "1")


def number(fields: list[tuple[str, str]], name: str, *, default: int, largest: int) -> int:
    """Return a field that is a number from 1 on; a larger one than `largest` is taken for it. Raises Refusal."""
    text = value(fields, name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) == 0:
        raise Refusal(400, f"{name} is a number from 1 on")
    return min(int(text), largest)


def base_url(request: Request) -> str:
    """Return the URL of this door as the client reached it."""
    return f"{request.scope['scheme']}://{request.headers['host']}"


def next_page(request: Request, cursor: str) -> dict[str, str]:
    """Return the header that leads to the next page: the same request, with `cursor`."""
    fields = [field for field in query_fields(request) if field[0] != "cursor"]
    url = f"{base_url(request)}{request.scope['raw_path'].decode('ascii')}?{urlencode([*fields, ('cursor', cursor)])}"
    return {"link": f'<{url}>; rel="next"'}


async def read_body(request: Request, *, size_max: int = BODY_SIZE_MAX) -> bytes:
    """Return the body. Raises Refusal if it is longer than `size_max` bytes or stops coming."""
    check_length(request, size_max)
    body = bytearray()
    try:
        async for piece in body_pieces(request):
            body += piece
            _held.set(held_bytes() + len(piece))
            if len(body) > size_max:
                raise too_large(size_max)
            # Many that come slowly are as large as a few that come at once.
            if held_bytes() > BODIES_SIZE_MAX:
                headers = {"retry-after": "2", "connection": "close"}
                raise Refusal(429, "too many large bodies at once", headers=headers)
    finally:
        _held.set(held_bytes() - len(body))
    return bytes(body)


def held_bytes() -> int:
    """Return the bytes of bodies that are being read now."""
    return _held.get(0)


@asynccontextmanager
async def while_client_stays(receive: Receive) -> AsyncIterator[None]:
    """Cancel the block, and go on behind it, when the client goes away."""
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        yield
        nursery.cancel_scope.cancel()


def check_length(request: Request, size_max: int) -> None:
    """Raise Refusal if the request says that its body has more than `size_max` bytes."""
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > size_max:
        raise too_large(size_max)


async def body_pieces(request: Request) -> Any:
    """Give the body piece by piece. Raises Refusal if it stops coming."""
    pieces = request.stream()
    while True:
        try:
            with trio.fail_after(BODY_GAP_S):
                piece = await anext(pieces, None)
        except trio.TooSlowError as exc:
            raise Refusal(408, f"nothing of the body came for {BODY_GAP_S:.0f} s") from exc
        except ClientDisconnect as exc:
            raise Refusal(400, "the client went away") from exc
        if piece is None:
            return
        if piece:
            yield piece


async def read_json(request: Request, type_: Any, *, size_max: int = BODY_SIZE_MAX) -> Any:
    """Return the JSON body as `type_`. Raises Refusal."""
    # A page can send text/plain anywhere without asking; JSON it cannot.
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind not in ("application/json", "application/vnd.git-lfs+json"):
        raise Refusal(415, "the body is not JSON by its content-type")
    body = await read_body(request, size_max=size_max)
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise Refusal(400, f"not the JSON that was expected: {exc}") from exc
    except RecursionError as exc:
        raise Refusal(400, "the JSON is nested too deeply") from exc


async def read_form(request: Request, *, size_max: int = BODY_SIZE_MAX) -> list[tuple[str, str]]:
    """Return the fields of a form, or of the JSON object that some clients send instead. Raises Refusal."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        return _fields(await read_body(request, size_max=size_max))
    given = await read_json(request, dict[str, list[str] | str | bool | None], size_max=size_max)
    fields: list[tuple[str, str]] = []
    for name, content in given.items():
        fields += [(name, str(item)) for item in (content if isinstance(content, list) else [content])]
    return fields


def too_large(size_max: int) -> Refusal:
    """Return the refusal of a body of more than `size_max` bytes."""
    return Refusal(413, f"the body has more than {size_max} bytes", headers={"connection": "close"})


def _fields(data: bytes) -> list[tuple[str, str]]:
    try:
        pairs = parse_qsl(data.decode(), keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict")
    except (UnicodeDecodeError, ValueError) as exc:
        raise Refusal(400, f"not the fields of a query or form: {exc}") from exc
    return [(name.removesuffix("[]"), content) for name, content in pairs]
