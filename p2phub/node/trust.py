"""What the owner of a home says about names: add, accept, list and forget bindings (spec/names.md §8)."""

from __future__ import annotations

from p2phub.core.errors import Conflict, InvalidName, NotFound, Offline
from p2phub.core.ids import NamespaceId, misspelling
from p2phub.core.names import check_new_name, is_domain, is_namespace_id
from p2phub.store.bindings import Binding

from .disk import on_disk
from .events import Notice, Tell
from .names import check_again, find, meaning, pin, prove, warn
from .node import Node
from .operations.trust import BindingInfo


async def add_name(node: Node, name: str, namespace: str | None, tell: Tell) -> BindingInfo:
    """Let `name` mean a publisher on this machine: a domain the one that it names, a petname `namespace`.

    With a namespace, a domain must name that one; without a network it is taken at one's word. Raises InvalidName,
    Conflict if the name means another publisher already, DomainError, BindingChanged, Offline.
    """
    check_new_name(name)
    if not is_domain(name):
        if namespace is None:
            raise InvalidName(
                f"'{name}' is no domain, so nobody can be asked whom it means",
                hint=misspelling(name) or f"a petname is given as `p2phub trust add {name}=NAMESPACE`",
            )
        return _info(await _give(node, name, await find(node, namespace, tell), tell))
    wanted = await _wanted(node, namespace)
    known = await on_disk(node.store.bindings.get, name)
    if known is not None:
        return _info(await _add_again(node, known, wanted, tell))
    if node.settings.offline:
        if wanted is None:
            raise Offline(
                f"{name} cannot be asked: the network is switched off",
                hint=f"`p2phub trust add {name}=NAMESPACE` takes the publisher at your word",
            )
        tell(Notice(f"{name} was not asked: the network is switched off"))
        return _info(await _give(node, name, wanted, tell))
    if wanted is None:
        return _info(await pin(node, name, "added", tell))
    proof = await prove(node, name, tell)
    if proof.namespace != wanted:
        raise Conflict(
            f"{name} names the publisher {proof.namespace}, and not {wanted}",
            hint="one of the two is wrong: ask its owner by another way",
        )
    return _info(await _give(node, name, wanted, tell, checked=True))


async def _wanted(node: Node, namespace: str | None) -> NamespaceId | None:
    if namespace is None:
        return None
    if not is_namespace_id(namespace):
        raise InvalidName(f"'{namespace}' is no namespace id: a domain can be compared with that alone")
    return NamespaceId.parse(namespace)


async def _add_again(node: Node, known: Binding, wanted: NamespaceId | None, tell: Tell) -> Binding:
    """Return a domain that is pinned already, asked again."""
    binding = known if node.settings.offline else await check_again(node, known, tell)
    if wanted is not None and wanted != meaning(binding):
        raise _taken(binding)
    meaning(binding)
    return binding


async def _give(node: Node, name: str, namespace: NamespaceId, tell: Tell, *, checked: bool = False) -> Binding:
    await warn(node, name, namespace, tell)
    binding = await on_disk(node.store.bindings.pin, name, namespace, "added", now=node.clock(), checked=checked)
    if binding.namespace != namespace:
        raise _taken(binding)
    return binding


def _taken(binding: Binding) -> Conflict:
    return Conflict(
        f"{binding.name} means {binding.namespace} here already",
        hint=f"`p2phub trust rm {binding.name}` forgets that",
    )


async def accept_name(node: Node, domain: str, tell: Tell) -> BindingInfo:
    """Let a domain mean the publisher that it names now, whatever it meant before.

    Raises NotFound if it is not pinned, DomainError, Offline.
    """
    binding = await _known(node, domain)
    if not binding.is_domain:
        raise InvalidName(f"'{domain}' is a petname: it means what you said", hint=f"p2phub trust rm {domain}")
    if node.settings.offline:
        raise Offline(f"{domain} cannot be asked: the network is switched off")
    proof = await prove(node, domain, tell)
    if proof.namespace == binding.namespace:
        await on_disk(node.store.bindings.note_checked, domain, now=node.clock())
        tell(Notice(f"{domain} names the same publisher as before: there was nothing to accept"))
    else:
        await on_disk(node.store.bindings.accept, domain, proof.namespace, now=node.clock())
    return _info(await _known(node, domain))


async def remove_name(node: Node, name: str) -> BindingInfo:
    """Forget what a name means; a domain is asked anew when it is used again. Raises NotFound."""
    binding = await _known(node, name)
    await on_disk(node.store.bindings.remove, name)
    return _info(binding)


async def list_names(node: Node) -> list[BindingInfo]:
    """Return the names that mean something here."""
    return [_info(binding) for binding in await on_disk(node.store.bindings.all)]


async def _known(node: Node, name: str) -> Binding:
    binding = await on_disk(node.store.bindings.get, name)
    if binding is None:
        raise NotFound(f"'{name}' means nothing here", hint="`p2phub trust ls` shows what does")
    return binding


def _info(binding: Binding) -> BindingInfo:
    return BindingInfo(
        name=binding.name,
        namespace=str(binding.namespace),
        source="domain" if binding.is_domain else "petname",
        how=binding.how,
        since=binding.since,
        checked=binding.checked,
        problem=binding.problem,
        offered=str(binding.offered) if binding.offered else None,
    )
