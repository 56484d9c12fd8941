"""Ask a witness of the web to cosign a head (spec/witness.md §3): one request, no redirects, a bounded answer."""

from __future__ import annotations

import ssl

import trio

from p2phub.core.errors import PeerError, PeerUnreachable
from p2phub.core.origins import Url
from p2phub.protocol.witnessing import COSIGNATURES_SIZE_MAX

from .http import Answer, AnswerTooLarge, HttpClient, NoAnswer

ANSWER_TIMEOUT_S = 30.0  # for all of it


async def add_checkpoint(prefix: Url, body: bytes) -> Answer:
    """Return what the witness at the URL `prefix` says of a head; unchecked.

    Raises PeerUnreachable, PeerError if it answers too much.
    """
    tls = ssl.create_default_context() if prefix.scheme == "https" else None
    client = HttpClient(prefix.host, prefix.port, tls)
    headers = {"content-type": "text/plain", "accept-encoding": "identity", "user-agent": "p2phub"}
    target = f"{prefix.target.rstrip('/')}/add-checkpoint"
    try:
        with trio.fail_after(ANSWER_TIMEOUT_S):
            return await client.ask("POST", target, headers, body, size_max=COSIGNATURES_SIZE_MAX)
    except (NoAnswer, trio.TooSlowError) as exc:
        why = str(exc) or "it is too slow"
        raise PeerUnreachable(f"cannot reach the witness at {prefix.endpoint}: {why}", peer=prefix.endpoint) from exc
    except AnswerTooLarge as exc:
        text = f"the witness at {prefix.endpoint} answers more than {COSIGNATURES_SIZE_MAX} bytes"
        raise PeerError(text, peer=prefix.endpoint) from exc
    finally:
        client.close()
