"""Do what operations about the policy file say."""

from __future__ import annotations

from p2phub.core.rules import Consent

from .. import rulecheck
from ..events import Tell
from ..handlers import Handlers
from ..node import Node
from ..operations.rules import CheckRules, PolicyCheck, ShownRules, ShowRules


async def _show_rules(node: Node, op: ShowRules, tell: Tell) -> ShownRules:
    return await rulecheck.show(node)


async def _check_rules(node: Node, op: CheckRules, tell: Tell) -> PolicyCheck:
    consent = Consent(pickles=op.allow_pickle, code=op.with_code)
    return await rulecheck.check_reference(node, op.reference, consent, tell)


HANDLERS: Handlers = {
    ShowRules: _show_rules,
    CheckRules: _check_rules,
}
