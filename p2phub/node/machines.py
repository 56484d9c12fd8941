"""Let other machines and robots publish as the same publisher, and move keys between places (spec/identity.md §8, §9).

new machine: request ──▶ first machine: add_key ──answer──▶ new machine: join
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from p2phub.core import rotation
from p2phub.core.armor import armor, copied, unarmor
from p2phub.core.checkpoint import parse_head
from p2phub.core.encoding import decode, encode
from p2phub.core.errors import Conflict, InvalidData, NotFound
from p2phub.core.identity import Identity, IdentityDocument, open_identity
from p2phub.core.ids import NamespaceId, PublicKey
from p2phub.core.joining import (
    ANSWER_SIZE_MAX,
    REQUEST_SIZE_MAX,
    KeyRequest,
    Secrets,
    make_answer,
    make_request,
    open_answer,
    open_request,
)
from p2phub.core.keybundle import KeyBundle
from p2phub.core.rotation import RoleName
from p2phub.core.signing import SEED_SIZE, Signer, SigningKey
from p2phub.protocol.messages import IdentityChain
from p2phub.store.agent import Agent, AgentKey
from p2phub.store.disk import write_file
from p2phub.store.keyring import (
    companions,
    keep_agent_key,
    keep_secrets,
    keep_signing_key,
    load_request_key,
    recipients,
    write_bundle,
)
from p2phub.store.keys import load_or_create_key
from p2phub.store.logs import IDENTITY_SIZE_MAX

from .identity import (
    PUBLISH_FILE,
    create_identity,
    has_identity,
    keep_own_identity,
    own_identity,
    own_keys,
    own_signers,
)
from .node import Node
from .renewing import change_identity, rotate, with_key_file

REQUEST_KIND, ANSWER_KIND, IDENTITY_KIND = "request", "answer", "identity"  # spec/identity.md §8


@dataclass(frozen=True)
class Exported:
    """What was written to a file."""

    identity: Identity
    keys: int  # that sign
    in_agent: list[PublicKey]  # that are not in the file, because an ssh-agent has them


# ── another machine ─────────────────────────────────────────────────────────


def request_key(node: Node, *, for_another: bool = False) -> str:
    """Return what this machine asks of the machine with the root key, as a word.

    for_another: offer the key of this home to another publisher; otherwise one is made, for a machine that
    publishes as nobody yet. Raises Conflict if it does.
    """
    keys = node.settings.layout.keys
    if has_identity(node) and not for_another:
        identity = own_identity(node)
        ours = own_keys(node)
        if own_signers(node, identity.current.publish):
            raise Conflict(
                f"this machine publishes as {identity.namespace} already",
                hint="`--for-another` offers its key to another publisher, `p2phub id rotate` makes a new one",
            )
        retired = {each.key for each in identity.current.retired}
        key = next((signer for each, signer in ours.items() if each not in retired), None)
        if key is None:
            key = SigningKey(os.urandom(SEED_SIZE))
            keep_signing_key(keys, key)
    else:
        key = next(iter(own_keys(node).values()), None) or load_or_create_key(keys / PUBLISH_FILE)
    return armor(REQUEST_KIND, make_request(key, load_request_key(keys), now=int(node.clock())))


def parse_request(text: str) -> KeyRequest:
    """Return the request that `text` writes, checked. Raises InvalidData."""
    data = unarmor(REQUEST_KIND, text, size_max=REQUEST_SIZE_MAX)
    with copied(REQUEST_KIND):
        return open_request(data)


def add_key(
    node: Node, request: KeyRequest, roles: Collection[RoleName], *, extra: Iterable[Signer] = ()
) -> tuple[Identity, str]:
    """Let the key of `request` have `roles`; returns the identity then, and the answer for the other machine.

    For a key that has them already, the answer is made again. Raises as `change_identity`.
    """
    identity = own_identity(node)
    if not set(roles) <= set(rotation.roles_of(identity.current, request.key)):
        identity = change_identity(node, lambda document: rotation.add_key(document, request.key, roles), extra=extra)
    shared = _own_secrets(node, identity) if "publish" in roles else Secrets()
    return identity, armor(ANSWER_KIND, make_answer(identity, request, shared))


def join(node: Node, text: str) -> Identity:
    """Take the answer to this machine's request; returns the identity that it publishes as from now on.

    Raises InvalidData if it is no such answer, Conflict if it names no key of this machine, or this home publishes
    as another.
    """
    keys = node.settings.layout.keys
    data = unarmor(ANSWER_KIND, text, size_max=ANSWER_SIZE_MAX)
    box = load_request_key(keys)
    for key in own_keys(node):
        try:
            with copied(ANSWER_KIND):
                identity, secrets = open_answer(data, key, box)
        except InvalidData as exc:
            problem = exc
            continue
        joined = _join(node, identity)
        keep_secrets(keys, secrets)
        return joined
    raise problem if own_keys(node) else NotFound("this machine asked for nothing", hint="`p2phub id request` does")


def join_known(node: Node, namespace: NamespaceId) -> Identity:
    """Publish as `namespace` from now on, whose newest documents name a key of this machine.

    Raises NotFound if they are not here, and as `join`.
    """
    identity = node.store.logs.identity(namespace)
    if identity is None:
        raise NotFound(f"nobody here knows {namespace}", hint="name a node that does: --peer p2phub://NODEID@HOST:PORT")
    return _join(node, identity)


def _join(node: Node, identity: Identity) -> Identity:
    if has_identity(node) and own_identity(node).namespace != identity.namespace:
        raise Conflict(f"this home publishes as {own_identity(node).namespace}", hint="use another P2PHUB_HOME")
    known = node.store.logs.identity(identity.namespace)
    newest = known if known is not None and known.continues(identity) else identity
    if not own_signers(node, newest.current.publish):
        raise Conflict(
            f"no key of this machine publishes for {identity.namespace}",
            hint="`p2phub id request` prints what the machine with the root key needs",
        )
    keep_own_identity(node, newest)
    return newest


# ── keys in files ───────────────────────────────────────────────────────────


def add_key_file(node: Node, path: Path, passphrase: str | None, *, extra: Iterable[Signer] = ()) -> Identity:
    """Make a key in the new file `path` that may publish, for a robot; returns the identity then.

    Raises StoreError if there is such a file, and as `change_identity`.
    """

    def change(document: IdentityDocument, key: PublicKey) -> IdentityDocument:
        return rotation.add_key(document, key, ["publish"])

    return with_key_file(node, path, passphrase, change, extra=extra)


def export_keys(node: Node, path: Path, passphrase: str) -> Exported:
    """Write all keys of this home's publisher to the new file `path`, locked. Raises NotFound if there is none."""
    identity = own_identity(node)
    named = {*identity.current.root.keys, *identity.current.publish.keys, *identity.current.fresh.keys}
    ours = [signer for key, signer in own_keys(node).items() if key in named]
    seeds = tuple(signer.seed for signer in ours if isinstance(signer, SigningKey))
    if not seeds:
        raise NotFound(
            f"no key of {identity.namespace} is in a file here", hint="an ssh-agent does not give its keys away"
        )
    heads = tuple(
        state.head
        for key in identity.current.publish.keys
        if key in own_keys(node)
        if (state := node.store.logs.state(identity.log_of(key))) and state.head
    )
    write_bundle(path, KeyBundle(1, seeds, identity.chain, _own_secrets(node, identity), heads), passphrase)
    agent = [signer.public_key for signer in ours if isinstance(signer, AgentKey)]
    return Exported(identity, len(seeds), agent)


def import_keys(node: Node, bundle: KeyBundle) -> Identity:
    """Take over the keys of a publisher that another machine exported; returns the identity.

    What they signed must come here before they sign more: the log would have two histories. Raises Conflict if this
    home publishes already, InvalidData if the file names no publisher.
    """
    if has_identity(node):
        raise Conflict(f"this home publishes as {own_identity(node).namespace} already", hint="use another P2PHUB_HOME")
    if bundle.identity is None:
        raise InvalidData("this file has keys and no publisher: `P2PHUB_KEY_FILE` or --key uses it")
    layout, identity = node.settings.layout, bundle.identity
    known = node.store.logs.identity(identity.namespace)
    newest = known if known is not None and known.continues(identity) else identity
    sizes = {head.log: head.size for head in map(parse_head, bundle.heads)}
    used = [newest.log_of(key.public_key) for key in bundle.signers if key.public_key in newest.publishers]
    # First what keeps a log from being forked, then what could fork it.
    lines = "".join(f"{log} {sizes.get(log, 0)}\n" for log in used)
    write_file(layout.restored, lines.encode(), mode=0o600)
    for key in bundle.signers:
        keep_signing_key(layout.keys, key)
    keep_secrets(layout.keys, bundle.secrets or Secrets())
    keep_own_identity(node, newest)
    return newest


def learn_documents(node: Node, text: str) -> Identity:
    """Take over public identity documents, written as a word; returns the identity.

    Raises InvalidData if they are none, SplitIdentity.
    """
    data = unarmor(IDENTITY_KIND, text, size_max=IDENTITY_SIZE_MAX)
    with copied(IDENTITY_KIND):
        identity = open_identity(decode(data, IdentityChain, size_max=IDENTITY_SIZE_MAX).documents)
    node.store.logs.add_identity(identity)
    return identity


def format_documents(identity: Identity) -> str:
    """Return public identity documents as a word."""
    return armor(IDENTITY_KIND, encode(IdentityChain(identity.chain)))


# ── keys in an ssh-agent ────────────────────────────────────────────────────


def use_agent(node: Node, text: str | None, *, extra: Iterable[Signer] = ()) -> Identity:
    """Let a key in the ssh-agent do what the key of this machine did; without an identity, make one with it.

    text: which, by its beginning or its comment; None: the only Ed25519 key that it has. Raises NotFound if there is
    no such key, and as `change_identity`.
    """
    agent = Agent.from_environment()
    key = AgentKey(_choose(agent.keys(), text), agent)
    keep_agent_key(node.settings.layout.keys, key.public_key)
    if not has_identity(node):
        return create_identity(node, key)
    return rotate(node, signer=key, extra=extra)


def _choose(keys: list[tuple[PublicKey, str]], text: str | None) -> PublicKey:
    found = [key for key, comment in keys if text is None or str(key).startswith(text) or comment == text]
    if len(found) == 1:
        return found[0]
    if not keys:
        raise NotFound(
            "the ssh-agent has no Ed25519 key, and no others will do",
            hint="`ssh-keygen -t ed25519` makes one, `ssh-add` adds it",
        )
    listed = ", ".join(f"{str(key)[:12]} ({comment})" for key, comment in keys[:8])
    hint = f"name one of: {listed}"
    if not found:
        raise NotFound("the ssh-agent has no Ed25519 key that is called so, and no others will do", hint=hint)
    raise NotFound(f"the ssh-agent has {len(found)} Ed25519 keys that are meant so", hint=hint)


# ── helpers ─────────────────────────────────────────────────────────────────


def _own_secrets(node: Node, identity: Identity) -> Secrets:
    """Return the keys for other purposes that are here, the newest first, as far as the identity names that."""
    keys = node.settings.layout.keys
    companion = next((key.secret for key in companions(keys) if key.public_key == identity.current.companion), None)
    found = sorted(recipients(keys), key=lambda key: key.public_key != identity.current.recipient)
    if not found or found[0].public_key != identity.current.recipient:
        found = []
    return Secrets(companion, tuple(key.secret for key in found[:16]))
