"""Do what an operation says, with an open node."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from importlib import import_module
from typing import Any

import trio

from p2phub.store.agent import waiting_told

from .disk import from_thread
from .events import Event, Notice, Tell
from .handlers import Handler, Handlers
from .identity import LogBehind
from .node import Node, open_node
from .operations import Operation
from .settings import Settings


async def run_alone(settings: Settings, operations: Sequence[Operation], tell: Tell) -> Any:
    """Do `operations` one after the other on a node opened for them; returns the result of the last."""
    result = None
    async with open_node(settings) as node, _handing_over(node, tell):
        for operation in operations:
            result = await run(node, operation, tell)
    return result


def _handing_over(node: Node, tell: Tell) -> AbstractAsyncContextManager[None]:
    if node.settings.key_file is None:
        return nullcontext()
    from .confirm import handing_over  # loads what talks

    return handing_over(node, tell)


async def run(node: Node, operation: Operation, tell: Tell) -> Any:
    """Do `operation` and return its result, of the type that it names. Raises HubError."""
    handler = handler_of(type(operation))
    with _waiting_told(tell):
        try:
            return await handler(node, operation, tell)
        except LogBehind:
            from .catchup import ready_to_publish  # seldom needed

            # Its first try changed nothing: it signs before all else, or not at all.
            await ready_to_publish(node, tell)
            return await handler(node, operation, tell)


def handler_of(operation: type[Operation]) -> Handler:
    """Return what does an operation: of the module of `doing` that is called as the operation's own.

    It is loaded when it is needed, since a command does one thing.
    """
    subject = operation.__module__.rpartition(".")[2]
    handlers: Handlers = import_module(f"{__package__}.doing.{subject}").HANDLERS
    return handlers[operation]


@contextlib.contextmanager
def _waiting_told(tell: Tell) -> Iterator[None]:
    """Tell it as a notice if the ssh-agent keeps what is done in here waiting."""
    is_over = False

    def tell_while_it_runs(event: Event) -> None:
        # What the operation started may sign later, when nobody listens any more.
        if not is_over:
            tell(event)

    tell_from_thread = from_thread(tell_while_it_runs)

    def watcher(text: str) -> None:
        say = tell_while_it_runs if trio.lowlevel.in_trio_task() else tell_from_thread
        say(Notice(text))

    try:
        with waiting_told(watcher):
            yield
    finally:
        is_over = True
