"""Show events on stderr: a bar while a person watches, notices always."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .text import human_bytes, human_seconds, one_line, provider_name

if TYPE_CHECKING:
    from p2phub.node.events import Event, Progress, ProviderRate, Tell


@contextlib.contextmanager
def show_progress(*, quiet: bool = False) -> Iterator[Tell]:
    """Give the function that events are told to."""
    from p2phub.node.events import Notice

    # A peer that is away is met again at every step; people need to hear of it once.
    said: set[str] = set()

    def is_new(notice: Notice) -> bool:
        if notice.text in said:
            return False
        said.add(notice.text)
        return True

    if quiet or not sys.stderr.isatty():

        def tell(event: Event) -> None:
            if isinstance(event, Notice) and not quiet and is_new(event):
                sys.stderr.write(f"p2phub: note: {one_line(event.text)}\n")

        yield tell
        return

    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, no_color="NO_COLOR" in os.environ)
    with Live(console=console, refresh_per_second=8, transient=True) as live:

        def tell_live(event: Event) -> None:
            if isinstance(event, Notice):
                if is_new(event):
                    console.print(f"p2phub: note: {one_line(event.text)}", highlight=False, markup=False)
            else:
                live.update(render(event))

        yield tell_live


def render(progress: Progress) -> Any:
    """Return what a person sees of `progress`: a bar, the rate, the time left, and who gives what."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    line = Table.grid(padding=(0, 1))
    line.add_row(
        Text(f"{progress.stage:>9}"),
        ProgressBar(total=max(progress.total, 1), completed=progress.done, width=32),
        Text(f"{human_bytes(progress.done)} of {human_bytes(progress.total)}"),
        Text(f"{human_bytes(progress.rate)}/s"),
        Text(_left(progress)),
    )
    rows: list[Any] = [line]
    if sources := _sources(progress):
        rows.append(Text(f"          {sources}"))
    for provider in progress.providers[:8]:
        rows.append(
            Text(
                f"          {provider_name(provider.node, provider.origin)}"
                f"  {human_bytes(provider.rate)}/s, {human_bytes(provider.received)}"
                f"{_state(provider)}"
            )
        )
    if progress.waiting_for:
        rows.append(Text(f"          waiting for {progress.waiting_for}"))
    return Group(*rows)


def _state(provider: ProviderRate) -> str:
    """Return what keeps a provider from giving, as far as something does."""
    if provider.state == "giving":
        return ""
    return f", {provider.state}" + (f": {one_line(provider.reason)}" if provider.reason else "")


def _left(progress: Progress) -> str:
    """Return how long it will take yet. Of what is only hashed, the rate so far is all that is known."""
    if progress.stage == "fetching":
        return "time left unknown" if progress.left_s is None else f"{human_seconds(progress.left_s)} left"
    return f"{human_seconds((progress.total - progress.done) / progress.rate)} left" if progress.rate > 0 else ""


def _sources(progress: Progress) -> str:
    """Return where the bytes come from: what was here, and what comes over which class of links."""
    parts = [f"{human_bytes(progress.here)} were here"] if progress.here else []
    parts += [f"{human_bytes(each.received)} over {each.link}" for each in progress.links]
    return ", ".join(parts)
