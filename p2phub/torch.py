"""Run the code of a repository through PyTorch Hub, pinned by hash.

    import p2phub.torch
    model = p2phub.torch.load("NAMESPACE/MODEL@1.0.0", "resnet", trust="b3:5112d9fbab05…")

A repository's `hubconf.py` is a program that runs as you. Who publishes it may publish
another one tomorrow, so trust is given to a revision, by its hash, and not to a name.
"""

from __future__ import annotations

from typing import Any

from p2phub.core.errors import AccessDenied, HubError, InvalidName, NotFound, VerificationFailed

HASH_DIGITS_MIN = 12  # of a revision's hash, as in names; spec/names.md §3


def load(reference: str, entry: str, *args: Any, trust: str | None = None, **kwargs: Any) -> Any:
    """Fetch `reference`, check every byte, and return what `entry` of its hubconf.py makes of the arguments.

    trust: the revision's hash, `b3:…` or at least 12 of its hex digits. Without it, or if the
    reference means another revision, nothing is run: AccessDenied says which one it is.
    Raises NotFound, VerificationFailed, and whatever the code raises.
    """
    import p2phub

    digits = _digits(trust) if trust is not None else None
    info = p2phub.info(reference)
    found = info.revision.removeprefix("b3:")
    if digits is None or not found.startswith(digits):
        wanted = "no revision of it is trusted" if digits is None else f"b3:{digits} is trusted"
        raise AccessDenied(
            f"{reference} is {info.revision}, and {wanted}",
            hint=f"read its hubconf.py, then pass trust='{info.revision}' to run it",
        )
    # By hash: the name may come to mean another revision between the look and the fetch.
    # Who trusts its code trusts all of the revision; a pickle that does more than hold data is refused all the same.
    fetched = p2phub.fetch(info.revision, with_code=True, allow_pickle=True)
    checked = p2phub.verify(fetched.path)
    if not checked.good:
        raise VerificationFailed(f"{checked.damaged[0].path} in {fetched.path} is not as published")
    if not any(file.path == "hubconf.py" for file in info.files):
        raise NotFound(f"{reference} has no hubconf.py")
    try:
        import torch
    except ImportError as exc:
        raise HubError("PyTorch is not installed", hint="pip install torch") from exc
    return torch.hub.load(fetched.path, entry, *args, source="local", **kwargs)


def _digits(trust: str) -> str:
    digits = trust.removeprefix("b3:")
    if len(digits) < HASH_DIGITS_MIN or set(digits) - set("0123456789abcdef"):
        raise InvalidName(f"trust={trust!r} is no hash of a revision: expected b3:… or {HASH_DIGITS_MIN} hex digits")
    return digits
