"""Everything the local door answers: the control API at its own paths, the hub's protocol at all others."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

_CONTROL = ("/control/", "/healthz")


def local_app(control: ASGIApp, hub: ASGIApp) -> ASGIApp:
    """Return the application of the local door."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (control if scope["path"].startswith(_CONTROL) else hub)(scope, receive, send)

    return app
