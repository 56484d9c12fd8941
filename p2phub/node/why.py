"""Why a name means what it means here, and what is believed of it: one answer of many explainers (spec/names.md §10).

    REF ──subject──▶ Subject ──each of EXPLAINERS──▶ Reasons, in their order

Whoever decides about a reference adds an explainer here, so that nobody has to ask in two places.
"""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable

from msgspec import Struct

from p2phub.core.choices import DEFAULT_BRANCH
from p2phub.core.errors import BindingChanged, HubError
from p2phub.core.identity import Identity
from p2phub.core.ids import NamespaceId
from p2phub.core.names import HashRef, is_domain, is_namespace_id, parse_reference
from p2phub.core.rules import Consent
from p2phub.store.assessments import Assessment

from .disk import on_disk
from .events import Tell, ignore
from .lookalikes import model_warnings, name_warnings
from .names import find, find_alone
from .node import Node
from .operations.trust import Reason
from .resolve import Target, own_namespace, resolve
from .rulecheck import check_reference
from .verdicts import bad, good, off, unknown
from .whyfresh import explain_freshness, explain_witnesses
from .whygates import explain_gate, explain_seal


class Subject(Struct, frozen=True):
    """What is asked about."""

    reference: str  # as it was typed
    name: str | None  # of the publisher, as it was typed; None: one's own, or none was
    namespace: NamespaceId | None  # None: nobody known here published it
    identity: Identity | None  # of the namespace, as far as it is here
    target: Target | None  # None: it is about a publisher as a whole


Explainer = Callable[[Node, Subject], Awaitable[list[Reason]]]


async def why(node: Node, reference: str, tell: Tell) -> list[Reason]:
    """Return what speaks for and against `reference`: NAMESPACE, NAMESPACE/MODEL[@REVISION], MODEL or b3:HASH.

    Raises as `resolve` does if nothing is known of it.
    """
    subject = await _subject(node, reference, tell)
    return [reason for explain in EXPLAINERS for reason in await explain(node, subject)]


async def _subject(node: Node, reference: str, tell: Tell) -> Subject:
    name, rest = await _split(node, reference, tell)
    namespace: NamespaceId | None = None
    written = reference
    if name is not None:
        try:
            namespace = await find(node, name, tell)
        except BindingChanged:
            # That is one of the answers, and not the last one.
            binding = await on_disk(node.store.bindings.get, name)
            assert binding is not None
            namespace = binding.namespace
            written = f"{namespace}/{rest}"
    target: Target | None = None
    if rest is not None:
        target = await resolve(node, written, ignore, refresh=True)
        namespace = target.namespace
    identity = await on_disk(node.store.logs.identity, namespace) if namespace else None
    return Subject(reference, name, namespace, identity, target)


async def _split(node: Node, text: str, tell: Tell) -> tuple[str | None, str | None]:
    """Return the name of the publisher and the rest of a reference; None for what it has not."""
    try:
        if await find_alone(node, text, tell) is not None:
            return text, None
    except BindingChanged:
        return text, None
    reference = parse_reference(text)
    if isinstance(reference, HashRef):
        return None, text
    if reference.namespace is None:
        if await on_disk(own_namespace, node) is None:
            return text, None
        return None, text
    return reference.namespace, text.partition("/")[2]


# ── explainers ──────────────────────────────────────────────────────────────


async def explain_name(node: Node, subject: Subject) -> list[Reason]:
    """Say how the name came to mean this publisher."""
    name, about = subject.name, "name"
    if name is None:
        own = subject.namespace is not None and subject.namespace == await on_disk(own_namespace, node)
        return [good(about, "it is your own")] if own else []
    if is_namespace_id(name):
        return [good(about, "the publisher is named by his id, which nobody else can have")]
    binding = await on_disk(node.store.bindings.get, name)
    if binding is None:
        return [unknown(about, f"{name} is not pinned here")]
    since = f"since {_day(binding.since)} ({binding.how})"
    found = []
    if binding.offered is not None:
        text = f"{name} names another publisher now, {binding.offered}: `p2phub trust accept {name}` accepts that"
        found.append(bad(about, text))
    found.append(good(about, f"{name} means {binding.namespace} here {since}"))
    if binding.is_domain and binding.checked is None:
        found.append(unknown(about, f"{name} itself never said so: you did"))
    if binding.problem:
        found.append(unknown(about, f"when it was last asked: {binding.problem}"))
    return found


async def explain_identity(node: Node, subject: Subject) -> list[Reason]:
    """Say what proves who may publish, and whether the publisher claims the domain."""
    identity, about = subject.identity, "publisher"
    if subject.namespace is None:
        return [unknown(about, "nobody who is known here published it")]
    if identity is None:
        return [unknown(about, f"the identity of {subject.namespace} is not here")]
    root = identity.current.root
    keys = f"{root.threshold} of {len(root.keys)} root keys" if len(root.keys) > 1 else "one root key"
    count = len(identity.chain)
    documents = "one identity document" if count == 1 else f"{count} identity documents, one after the other"
    found = [good(about, f"{subject.namespace} is proved by {documents}, signed by {keys}")]
    if (split := await on_disk(node.store.splits.of, subject.namespace)) is not None:
        text = f"its root keys signed two documents of version {split.version}; the one that came first counts here"
        found.append(bad(about, text))
    if subject.name is not None and is_domain(subject.name):
        if subject.name in identity.current.domains:
            found.append(good(about, f"it claims {subject.name}"))
        else:
            found.append(bad(about, f"it does not claim {subject.name} any more"))
    return found


async def explain_logs(node: Node, subject: Subject) -> list[Reason]:
    """Say whether the publisher's keys agree about what was published."""
    if subject.identity is None:
        return []
    namespace, about = subject.identity.namespace, "log"

    def look() -> list[Reason]:
        states = node.store.logs.logs_of(namespace)
        forks = {fork.log: fork for fork in node.store.forks.all() if fork.namespace == namespace}
        suspected = set(node.store.forks.suspected())
        found = []
        for state in states:
            fork = forks.get(state.log)
            if fork is not None and not fork.is_settled:
                found.append(bad(about, f"log {state.log} was signed with two histories; {fork.common} records count"))
            elif state.log in suspected:
                found.append(bad(about, f"of log {state.log} two histories were met"))
        records = sum(state.size for state in states)
        count = "one record" if records == 1 else f"{records} records"
        logs = "one log" if len(states) == 1 else f"{len(states)} logs"
        if not found and states:
            found.append(good(about, f"{count} in {logs}, all signed, and in an order that is proven"))
        return found or [unknown(about, "no records of this publisher are here")]

    return await on_disk(look)


async def explain_revision(node: Node, subject: Subject) -> list[Reason]:
    """Say what the revision rests on."""
    target, about = subject.target, "revision"
    if target is None:
        return []
    namespace, model, catalogue = target.namespace, target.model, node.store.catalogue
    if namespace is None or model is None or target.manifest is None:
        return [good(about, f"it is named by its own hash: {target.manifest or target.file}")]

    def look() -> list[Reason]:
        if target.version:
            claim = catalogue.version(namespace, model, target.version)
            said = f"version {target.version}, which never changes its meaning,"
        else:
            branch = target.branch or DEFAULT_BRANCH
            claim = catalogue.branch(namespace, model, branch) if target.branch else None
            said = f"branch {branch}, which its publisher may move,"
        if claim is None:
            return [good(about, f"{target.manifest} was published as {model}")]
        place = f"by record {claim.index} of log {str(claim.log)[:12]}…, {_day(claim.time)}"
        found = [good(about, f"{said} is {target.manifest} {place}")]
        if claim.conflicts:
            found.append(bad(about, "other keys of the publisher say otherwise: `p2phub trust conflicts`"))
        if target.version and (yanked := catalogue.yanked(namespace, model, target.version)) is not None:
            found.append(bad(about, "its publisher yanked it" + (f": {yanked}" if yanked else "")))
        return found

    return await on_disk(look)


async def explain_lookalikes(node: Node, subject: Subject) -> list[Reason]:
    """Say which other names this one could be taken for."""
    found: list[Reason] = []
    about, target = "look-alike", subject.target
    if subject.name is not None and subject.namespace is not None:
        texts = await on_disk(name_warnings, node, subject.name, subject.namespace)
        found += [bad(about, text) for text in texts]
    if target is not None and target.namespace is not None and target.model is not None:
        texts = await on_disk(model_warnings, node, target.namespace, target.model)
        found += [unknown(about, text) for text in texts]
    return found


async def explain_following(node: Node, subject: Subject) -> list[Reason]:
    """Say whether this node takes in what the publisher publishes."""
    if subject.namespace is None:
        return []
    policy, about = await on_disk(node.following.refresh), "follow"
    if str(subject.namespace) in policy.blocked:
        return [bad(about, "you blocked this publisher")]
    if policy.mode == "open":
        return [off(about, "this node takes in what everybody publishes")]
    if policy.names(subject.namespace):
        return [good(about, "you follow this publisher")]
    return [unknown(about, "you follow others, so nothing new of this publisher is taken in")]


async def explain_content(node: Node, subject: Subject) -> list[Reason]:
    """Say what is believed of the bytes: never more than their hash."""
    if subject.target is None:
        return []
    return [good("content", "every byte is checked against the hash in its manifest before it is handed out")]


async def explain_policy(node: Node, subject: Subject) -> list[Reason]:
    """Say what the policy file lets in of it, and what it asks about."""
    target, about = subject.target, "policy"
    if target is None or target.manifest is None:
        return []
    try:
        checked = await check_reference(node, subject.reference, Consent(), ignore)
    except HubError as exc:
        return [unknown(about, f"what it says cannot be known: {exc}")]
    says = {"refused": bad, "left out": unknown, "fine": good}
    found = [says[finding.outcome](about, finding.text) for finding in checked.findings]
    return found or [good(about, "nothing speaks against it")]


async def explain_assessments(node: Node, subject: Subject) -> list[Reason]:
    """Say what publishers found of it, whoever they are."""
    target = subject.target
    if target is None or target.manifest is None:
        return []
    says = {"good": good, "bad": bad}
    return [
        says[said.verdict](said.claim, _assessment(said))
        for said in await on_disk(node.store.assessments.about, [target.manifest])
    ]


def _assessment(said: Assessment) -> str:
    score = f"{said.metric} = {said.value}, " if said.metric else ""
    return f"{score}says {said.namespace}" + (f": {said.message}" if said.message else "")


async def explain_access(node: Node, subject: Subject) -> list[Reason]:
    """Say what stands between a reader and the files."""
    return [*await explain_gate(node, subject.target), *await explain_seal(node, subject.target)]


EXPLAINERS: tuple[Explainer, ...] = (
    explain_name,
    explain_identity,
    explain_logs,
    explain_revision,
    explain_freshness,
    explain_witnesses,
    explain_content,
    explain_access,
    explain_following,
    explain_lookalikes,
    explain_policy,
    explain_assessments,
)


def _day(seconds: int) -> str:
    """Return a time in seconds since 1970 as its date."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d")
