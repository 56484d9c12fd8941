"""Everything the local door answers: the control API at its own paths, the hub's protocol at all others."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

_CONTROL = ("/control/", "/healthz")


def local_app(control: ASGIApp, hub: ASGIApp) -> ASGIApp:
    """Return the application of the local door."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # What is no request (start and end of the server) is the control API's, too.
        is_hub = scope["type"] == "http" and not scope["path"].startswith(_CONTROL)
        await (hub if is_hub else control)(scope, receive, send)

    return app
