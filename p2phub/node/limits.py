"""Change what may be used of links, and what belongs to which class (spec/links.md §1, §2)."""

from __future__ import annotations

from msgspec.structs import replace

from p2phub.core.choices import LINK_CLASSES, LinkClass
from p2phub.core.errors import InvalidName, NotFound
from p2phub.core.labels import check_label
from p2phub.core.limits import RATE_MIN, RULES_MAX, LabelRule, Limit, LinkSettings, RangeRule
from p2phub.core.links import parse_range

from .node import Node


async def set_limit(
    node: Node, link: LinkClass, *, up: int | None, down: int | None, background: bool | None
) -> LinkSettings:
    """Change what may be used of `link`; returns the settings in force.

    up, down: bytes a second, 0 for no limit, None to leave it. Raises InvalidName if they are too low to be of use.
    """
    for rate in (up, down):
        if rate and rate < RATE_MIN:
            raise InvalidName(
                f"a limit of {rate} bytes a second is too low: what is asked for would not arrive in time",
                hint=f"the lowest is {RATE_MIN // 1000}k; 0 or none is no limit",
            )

    def change(settings: LinkSettings) -> LinkSettings:
        old = settings.limit(link)
        new = Limit(
            link,
            up=old.up if up is None else up or None,
            down=old.down if down is None else down or None,
            background=old.background if background is None else background,
        )
        return replace(settings, limits=tuple(new if each == link else settings.limit(each) for each in LINK_CLASSES))

    return await node.links.change(change)


async def set_range(node: Node, range_: str, link: LinkClass | None) -> LinkSettings:
    """Let addresses in `range_` belong to `link`, or take that back (None). Raises InvalidName, NotFound."""
    text = str(parse_range(range_))

    def change(settings: LinkSettings) -> LinkSettings:
        others = tuple(rule for rule in settings.ranges if rule.range != text)
        if link is None:
            _check_known(text, len(settings.ranges) - len(others))
            return replace(settings, ranges=others)
        _check_count(len(others))
        return replace(settings, ranges=(*others, RangeRule(text, link)))

    return await node.links.change(change)


async def set_label(node: Node, label: str, link: LinkClass | None) -> LinkSettings:
    """Let nodes with `label` belong to `link`, or take that back (None). Raises InvalidName, NotFound."""
    check_label(label)

    def change(settings: LinkSettings) -> LinkSettings:
        others = tuple(rule for rule in settings.labels if rule.label != label)
        if link is None:
            _check_known(label, len(settings.labels) - len(others))
            return replace(settings, labels=others)
        _check_count(len(others))
        return replace(settings, labels=(*others, LabelRule(label, link)))

    return await node.links.change(change)


def _check_known(what: str, count: int) -> None:
    if not count:
        raise NotFound(f"there is no rule for {what}", hint="`p2phub limits` shows the rules")


def _check_count(others: int) -> None:
    if others >= RULES_MAX:
        raise InvalidName(f"there are {RULES_MAX} rules of this kind already, which is the limit")
