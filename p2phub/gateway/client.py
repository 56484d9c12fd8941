"""Run an operation: through the daemon of this home if one runs, else on a node opened for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import httpx
import msgspec
import trio
from msgspec import Struct

from p2phub.core.errors import HubError, InvalidData, InvalidName, rebuild
from p2phub.core.jsonform import to_json
from p2phub.node.events import Event, Tell
from p2phub.node.node import Settings, open_node
from p2phub.node.operations import RESULTS, Operation, run
from p2phub.store.layout import Layout

CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 5.0  # until a node has said that it is one


class Health(Struct, frozen=True):
    """What the local door says to anybody."""

    node_id: str


class Daemon(Struct, frozen=True):
    """A running daemon's local door."""

    local_url: str
    token: str
    pid: int = 0
    node_id: str = ""
    address: str = ""


async def find_daemon(layout: Layout, environment: Mapping[str, str] = os.environ) -> Daemon | None:
    """Return the daemon that answers for this home, or for P2PHUB_NODE if that is set; None if none does.

    Raises HubError if P2PHUB_NODE is set and nothing answers there.
    """
    named = environment.get("P2PHUB_NODE", "")
    if named == "none":
        return None
    try:
        daemon: Daemon | None = msgspec.json.decode(layout.daemon.read_bytes(), type=Daemon)
    except (OSError, msgspec.DecodeError):
        daemon = None
    if named:
        token = environment.get("P2PHUB_TOKEN") or (daemon.token if daemon else "")
        daemon = Daemon(named.rstrip("/"), token)
    if daemon is None:
        return None
    node_id, reason = await _who_answers(daemon)
    if named:
        if node_id is None:
            raise HubError(f"no node answers at P2PHUB_NODE={named}: {reason}")
        return daemon
    # A node that was killed leaves its file behind, and anybody may have its port by now.
    return daemon if node_id == daemon.node_id else None


async def _who_answers(daemon: Daemon) -> tuple[str | None, str]:
    """Return the id of the node that answers at the daemon's local door, or None and why there is none."""
    reason = "no answer in time"
    with trio.move_on_after(ANSWER_TIMEOUT_S):
        try:
            async with _http(daemon) as http:
                answer = await http.get("/healthz")
                return msgspec.json.decode(answer.content, type=Health).node_id, ""
        except msgspec.DecodeError:
            reason = "what answers there is no p2phub node"
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as exc:
            reason = str(exc) or type(exc).__name__
    return None, reason


async def run_operation(settings: Settings, operation: Operation, tell: Tell) -> Any:
    """Do `operation`, wherever it is done best, and return its result. Raises HubError."""
    # The daemon may use the network; who wants none does without it.
    daemon = None if settings.offline else await find_daemon(settings.layout)
    if daemon is None:
        async with open_node(settings) as node:
            return await run(node, operation, tell)
    return await _run_there(daemon, operation, tell)


async def _run_there(daemon: Daemon, operation: Operation, tell: Tell) -> Any:
    headers = {"authorization": f"Bearer {daemon.token}", "content-type": "application/json"}
    try:
        body = to_json(operation)
    except UnicodeEncodeError as exc:
        raise InvalidName(
            "a path or name that is not UTF-8 cannot be told to the running node",
            hint="P2PHUB_NODE=none works without it",
        ) from exc
    try:
        async with (
            _http(daemon) as http,
            http.stream("POST", "/control/v1/run", content=body, headers=headers) as response,
        ):
            async for line in response.aiter_lines():
                if line:
                    answer = _parse(line)
                    if "event" in answer:
                        tell(msgspec.convert(answer["event"], Event))
                    elif "error" in answer:
                        error = answer["error"]
                        raise rebuild(error.get("type", ""), error.get("text", ""), error.get("hint"))
                    elif "result" in answer:
                        return msgspec.convert(answer["result"], RESULTS[type(operation)])
    except (httpx.HTTPError, OSError) as exc:
        raise HubError(f"the node at {daemon.local_url} went away: {exc or type(exc).__name__}") from exc
    raise HubError(f"the node at {daemon.local_url} ended its answer too early")


def _parse(line: str) -> dict[str, Any]:
    try:
        answer = msgspec.json.decode(line)
    except msgspec.DecodeError as exc:
        raise InvalidData("the local door is not that of a p2phub node") from exc
    if not isinstance(answer, dict):
        raise InvalidData("the local door is not that of a p2phub node")
    return answer


def _http(daemon: Daemon) -> httpx.AsyncClient:
    # An operation may take hours; the daemon tells its progress several times a second.
    timeout = httpx.Timeout(None, connect=CONNECT_TIMEOUT_S)
    return httpx.AsyncClient(base_url=daemon.local_url, timeout=timeout, trust_env=False)
