"""How a request is refused so that the hub's clients understand why (spec/hub-api.md §6).

Clients tell errors apart by the header `X-Error-Code`, and an answer to HEAD has no
other place for text than `X-Error-Message`.
"""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from p2phub.core.errors import (
    AccessDenied,
    Conflict,
    HubError,
    InvalidData,
    InvalidName,
    NoSpace,
    NotFound,
    Offline,
    PeerError,
)

MESSAGE_SIZE_MAX = 1000  # characters of a text in a header


class Refusal(Exception):
    """An answer that says no. `code` is what the client's exception follows from, where it has one."""

    def __init__(
        self,
        status: int,
        text: str,
        *,
        code: str | None = None,
        headers: dict[str, str] | None = None,
        body: dict[str, object] | None = None,
    ) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.code = code
        self.headers = headers or {}
        self.body = body or {}

    def response(self) -> Response:
        """Return the answer."""
        headers = {"x-error-message": _header_text(self.text), **self.headers}
        if self.code:
            headers["x-error-code"] = self.code
        return JSONResponse({"error": self.text, **self.body}, self.status, headers)


def no_repository(text: str) -> Refusal:
    """There is no such repository, or none that is known here."""
    return Refusal(404, text, code="RepoNotFound")


def no_revision(text: str) -> Refusal:
    """The repository has no such branch, version or commit."""
    return Refusal(404, text, code="RevisionNotFound")


def no_entry(text: str, commit: str) -> Refusal:
    """The commit has no such file or folder. With the commit, clients remember that."""
    return Refusal(404, text, code="EntryNotFound", headers={"x-repo-commit": commit})


def not_allowed(text: str) -> Refusal:
    """The repository is there, and its content is not for the owner of this node. Clients call that gated."""
    return Refusal(403, text, code="GatedRepo")


def not_served(text: str) -> Refusal:
    """This hub has no such thing. Never 500 or 503: clients would try again, for half a minute."""
    return Refusal(501, text)


def refusal_of(error: HubError) -> Refusal:
    """Return how an error of the node is told to a client."""
    text = f"{error} ({error.hint})" if error.hint else str(error)
    match error:
        case InvalidName() | InvalidData():
            return Refusal(400, text)
        case AccessDenied():
            return Refusal(403, text)
        case Conflict():
            return Refusal(409, text)
        case NoSpace():
            return Refusal(507, text)
        case NotFound() | Offline() | PeerError():
            # What is known by name but not to be had now may be had later.
            return Refusal(504, text)
        case _:
            return Refusal(500, text)


def _header_text(text: str) -> str:
    """Return `text` as a header may carry it: one line, Latin-1."""
    words = " ".join(text.split())[:MESSAGE_SIZE_MAX]
    line = "".join(char if char.isprintable() else "?" for char in words)
    return line.encode("latin-1", "replace").decode("latin-1")
