"""The policy file: what its owner lets in, and what of a repository is left out or refused (spec/rules.md).

policy.toml ──parse──▶ Rules ─┐
manifest, catalogue ──▶ Facts ─┴─judge──▶ Findings ──▶ what is refused, what is left out, and why
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from .ages import describe_age
from .errors import InvalidName
from .findings import Finding
from .formats import FORMATS, HARMLESS, Format, format_of, is_surely_pickled
from .ids import ContentId, ManifestId, NamespaceId
from .licenses import permits, to_spdx
from .names import is_domain, is_namespace_id, is_petname
from .picklenames import Scan, forbidden

if TYPE_CHECKING:
    # It loads what signs, and a command that asks a daemon signs nothing.
    from .witness import Quorum

POLICY_SIZE_MAX = 1024 * 1024  # bytes; spec/rules.md §1
SHOWN_MAX = 5  # names in one finding

Texts = Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=1024)], ...], Meta(max_length=10_000)]


class Licences(Struct, frozen=True, forbid_unknown_fields=True):
    """Which licences are accepted; ids of SPDX, or of the existing hub."""

    allow: Texts = ()  # none: all
    deny: Texts = ()
    unknown: bool = True  # what says nothing of its licence is accepted


class Formats(Struct, frozen=True, forbid_unknown_fields=True):
    """Which formats are taken by themselves; pickles and code have sections of their own."""

    allow: tuple[Format, ...] = HARMLESS


class Pickles(Struct, frozen=True, forbid_unknown_fields=True):
    """What is done with pickles, which are programs."""

    # ask: where somebody says so for this one time. scanned: always. Both after a scan.
    fetch: Literal["ask", "scanned", "never"] = "ask"
    door: Literal["scanned", "never"] = "scanned"  # at the local door, where a program asks for one by its name
    allow: Texts = ()  # what they may import besides
    accept: Texts = ()  # files and manifests by hash that somebody looked at: what they import is not asked


class Code(Struct, frozen=True, forbid_unknown_fields=True):
    """What is done with programs that a repository brings."""

    fetch: Literal["ask", "always", "never"] = "ask"
    door: Literal["always", "never"] = "always"


class Block(Struct, frozen=True, forbid_unknown_fields=True):
    """What is neither taken nor given."""

    publishers: Texts = ()  # namespace ids, or names that are pinned here
    content: Texts = ()  # b3:… of files and manifests
    lists: Texts = ()  # the same: those whose word that something is blocked counts here


class Attested(Struct, frozen=True, forbid_unknown_fields=True):
    """What must have been found of a repository, and by whom."""

    claim: Literal["evaluation", "scan", "review", "endorsement"]
    by: Annotated[Texts, Meta(min_length=1)]  # namespace ids, or names that are pinned here
    need: Annotated[int, Meta(ge=1, le=100)] = 1  # how many of these


class Freshness(Struct, frozen=True, forbid_unknown_fields=True):
    """How old a publisher's word may be that nothing newer is there, for names that move."""

    max_age_days: Annotated[int, Meta(ge=1, le=3650)] | None = None  # None: however old


class Witnesses(Struct, frozen=True, forbid_unknown_fields=True):
    """Who must vouch for the log in which something was published."""

    need: Annotated[int, Meta(ge=0, le=64)] = 0  # how many of `keys`
    keys: Texts = ()  # NAME+ID+KEY

    @property
    def quorum(self) -> Quorum:
        """The witnesses, and how many it takes. Raises InvalidName."""
        from .witness import Quorum

        return Quorum.parse(self.need, self.keys)


class Rules(Struct, frozen=True, forbid_unknown_fields=True):
    """What a policy file says; without one, this."""

    licences: Licences = Licences()
    formats: Formats = Formats()
    pickles: Pickles = Pickles()
    code: Code = Code()
    block: Block = Block()
    fresh: Freshness = Freshness()
    witnesses: Witnesses = Witnesses()
    attested: Annotated[tuple[Attested, ...], Meta(max_length=100)] = ()  # all of these


def parse(text: str) -> Rules:
    """Return what the policy file `text` says. Raises InvalidName, which names the line or the section."""
    import tomllib  # most homes have no such file

    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        reason = "it is nested too deep" if isinstance(exc, RecursionError) else str(exc)
        raise InvalidName(f"it is no TOML: {reason}") from exc
    _check_names(values, Rules, "")
    try:
        rules = msgspec.convert(values, type=Rules)
    except msgspec.ValidationError as exc:
        from .misfits import describe

        text, hint = describe(exc, Rules)
        raise InvalidName(text, hint=hint) from exc
    _check_values(rules)
    return rules


def named(rules: Rules) -> set[str]:
    """Return the domains and petnames by which `rules` call publishers."""
    return {text for text in _publishers(rules) if not is_namespace_id(text)}


def with_ids(rules: Rules, ids: Mapping[str, NamespaceId]) -> Rules:
    """Return `rules` with namespace ids in the place of the names in `ids`."""

    def each(texts: Texts) -> Texts:
        return tuple(str(ids.get(text, text)) for text in texts)

    block = replace(rules.block, publishers=each(rules.block.publishers), lists=each(rules.block.lists))
    return replace(rules, block=block, attested=tuple(replace(rule, by=each(rule.by)) for rule in rules.attested))


def _publishers(rules: Rules) -> Iterator[str]:
    yield from rules.block.publishers
    yield from rules.block.lists
    for attested in rules.attested:
        yield from attested.by


def _check_names(values: dict[str, Any], of: type[Struct], where: str) -> None:
    """Refuse what nobody would read: a misspelt rule is no rule, and a section no value."""
    import difflib

    fields = {field.name: field.type for field in msgspec.structs.fields(of)}
    for name, value in values.items():
        path = f"{where}{name}"
        if name not in fields:
            near = difflib.get_close_matches(name, fields, 1)
            hint = f"did you mean {where}{near[0]}?" if near else f"known here: {', '.join(fields)}"
            raise InvalidName(f"{path} is no rule", hint=hint)
        if isinstance(fields[name], type) and issubclass(fields[name], Struct):
            if not isinstance(value, dict):
                raise InvalidName(f"{path} must be a table", hint=f"write [{path}], and its rules below")
            _check_names(value, fields[name], f"{path}.")


def _check_values(rules: Rules) -> None:
    for text in (*rules.licences.allow, *rules.licences.deny):
        if to_spdx(text) is None:
            raise InvalidName(f"licences: '{text}' is no licence of SPDX", hint="see https://spdx.org/licenses")
    try:
        rules.witnesses.quorum  # noqa: B018  # it raises
    except InvalidName as exc:
        raise InvalidName(f"witnesses: {exc}") from exc
    for attested in rules.attested:
        if attested.need > len(set(attested.by)):
            raise InvalidName(f"attested: {attested.need} are needed of {len(set(attested.by))} publishers")
    for text in _publishers(rules):
        if not (is_domain(text) or is_petname(text)):
            NamespaceId.parse(text)
    for text in (*rules.block.content, *rules.pickles.accept):
        ContentId.parse(text)
    for text in rules.pickles.allow:
        if "." not in text or "*" in text:
            raise InvalidName(f"pickles.allow: '{text}' is no whole name", hint="such as collections.defaultdict")


# ── what is judged ──────────────────────────────────────────────────────────


class File(Struct, frozen=True):
    """A file of a repository, as far as rules go by it."""

    path: str
    root: ContentId


class Found(Struct, frozen=True):
    """What a publisher found of a repository or of one of its files: the last word on it."""

    by: NamespaceId
    claim: str
    good: bool
    path: str | None = None  # None: of all of it
    message: str = ""


class Facts(Struct, frozen=True):
    """What is known of a revision."""

    manifest: ManifestId
    files: tuple[File, ...]
    licence: str | None = None  # as its card says
    publisher: NamespaceId | None = None  # under whose name it was asked for
    recalled: str | None = None  # why its publisher took it back; None: it was not
    found: tuple[Found, ...] = ()  # what others found of it and of its files
    # Of what another publisher published, and a policy asks about; spec/rules.md §2.
    is_moving: bool = False  # the name that was asked for may stand for another revision tomorrow
    stated_age_s: float | None = None  # since the publisher said that nothing newer is there; None: he never did
    missing: tuple[str, ...] = ()  # what he stated and is not here
    is_recorded: bool = False  # it was asked for by a name, so that a record stands for it
    witnessed: tuple[str, ...] = ()  # NAME+ID+KEY of those who vouch for that record


class Consent(Struct, frozen=True):
    """What whoever asks said for this one time."""

    pickles: bool = False
    code: bool = False
    recalled: bool = False


def judge(rules: Rules, facts: Facts, consent: Consent) -> list[Finding]:
    """Return what the rules say of a revision and its files by their names, before any of them is here."""
    return [
        *_recalled(facts, consent),
        *_blocked(rules.block, facts),
        *_attested(rules.attested, facts),
        *_fresh(rules.fresh, facts),
        *_witnesses(rules.witnesses, facts),
        *_licence(rules.licences, facts),
        *(finding for file in facts.files if (finding := judge_name(rules, file.path, consent))),
    ]


def judge_name(rules: Rules, path: str, consent: Consent) -> Finding | None:
    """Return why a file is not taken by its name alone, None if nothing speaks against it."""
    form = format_of(path)
    if form == "code":
        return _ask("code", rules.code.fetch, consent.code, path, "is a program", "--with-code takes it")
    if form == "pickle":
        if not is_surely_pickled(path):
            return None
        return _ask("pickles", rules.pickles.fetch, consent.pickles, path, "is a pickle, which can run programs",
                    "--allow-pickle takes it after a scan")  # fmt: skip
    if form in rules.formats.allow:
        return None
    hint = f'"{form}" in formats.allow of the policy file takes it'
    return Finding("formats", "left out", f"{path} is {form}, which the policy does not take", path, hint)


def judge_content(
    rules: Rules, file: File, scan: Scan, consent: Consent, manifest: ManifestId | None = None
) -> Finding | None:
    """Return why a file is not taken by what it holds, None if nothing speaks against it."""
    if not scan.is_pickle:
        return None
    asked = _ask("pickles", rules.pickles.fetch, consent.pickles, file.path, "is a pickle, which can run programs",
                 "--allow-pickle takes it after a scan")  # fmt: skip
    return asked or judge_pickle(rules, file, scan, manifest)


def judge_pickle(rules: Rules, file: File, scan: Scan, manifest: ManifestId | None = None) -> Finding | None:
    """Return why a pickle must not be loaded, None if nothing speaks against it."""
    if {str(file.root), str(manifest)} & set(rules.pickles.accept):
        return None
    found = forbidden(scan.names, rules.pickles.allow)
    if scan.problem is None and not found:
        return None
    # A module that is not known is no proof of harm, and some that are known are.
    what = scan.problem if not found else f"loading it would call {_some(found)}"
    accept = f"who looked at it can add {file.root} to pickles.accept of the policy"
    hint = f"--exclude {file.path} fetches the rest; {accept}"
    return Finding("pickles", "refused", f"{file.path} is no pickle of plain data: {what}", file.path, hint)


def refusal(findings: Iterable[Finding]) -> Finding | None:
    """Return the first finding that refuses all of it."""
    return next((finding for finding in findings if finding.outcome == "refused"), None)


def _ask(rule: str, setting: str, agreed: bool, path: str, what: str, how: str) -> Finding | None:
    if setting == "never":
        return Finding(rule, "left out", f"{path} {what}, and the policy never takes one", path)
    if setting == "ask" and not agreed:
        return Finding(rule, "left out", f"{path} {what}", path, how)
    return None


def _recalled(facts: Facts, consent: Consent) -> list[Finding]:
    if facts.recalled is None:
        return []
    text = "it was recalled by its publisher" + (f": {facts.recalled}" if facts.recalled else "")
    if consent.recalled:
        return [Finding("recall", "fine", text)]
    return [Finding("recall", "refused", text, hint="--recalled takes it all the same")]


def _attested(rules: Sequence[Attested], facts: Facts) -> list[Finding]:
    found = []
    for rule in rules:
        voices = {str(said.by): said.good for said in facts.found if said.claim == rule.claim and said.path is None}
        good = [name for name in dict.fromkeys(rule.by) if voices.get(name)]
        bad = [name for name in rule.by if voices.get(name) is False]
        what = f"{rule.claim} of {rule.need} of {len(set(rule.by))} publishers"
        if bad:
            found.append(Finding("attested", "refused", f"{bad[0]} found it bad ({rule.claim})"))
        elif len(good) < rule.need:
            found.append(Finding("attested", "refused", f"the policy wants {what}, and {len(good)} found it good"))
        else:
            found.append(Finding("attested", "fine", f"{what}: {', '.join(good)}"))
    return found


def _fresh(rule: Freshness, facts: Facts) -> list[Finding]:
    if rule.max_age_days is None or not facts.is_moving:
        return []
    within = f"the policy wants the publisher's word of the last {_days(rule.max_age_days)} that nothing newer is there"
    if facts.missing:
        return [Finding("fresh", "refused", facts.missing[0])]
    if facts.stated_age_s is None:
        return [Finding("fresh", "refused", f"{within}, and there is none")]
    age = describe_age(facts.stated_age_s)
    if facts.stated_age_s > rule.max_age_days * 86400:
        return [Finding("fresh", "refused", f"{within}, and he gave it {age} ago", hint="a version never moves")]
    return [Finding("fresh", "fine", f"the publisher said {age} ago that nothing newer is there")]


def _witnesses(rule: Witnesses, facts: Facts) -> list[Finding]:
    if not rule.need or not facts.is_recorded:
        return []
    quorum = rule.quorum
    what = f"{rule.need} of {len(quorum.witnesses)} witnesses"
    found = [witness for witness in quorum.witnesses if str(witness) in facts.witnessed]
    if not quorum.is_met_by(found):
        text = f"the policy wants {what} to vouch for its record, and {len(found)} do"
        return [Finding("witnesses", "refused", text)]
    names = ", ".join(sorted(witness.name for witness in found))
    return [Finding("witnesses", "fine", f"{what} vouch for its record: {names}")]


def _days(count: int) -> str:
    return "day" if count == 1 else f"{count} days"


def _blocked(block: Block, facts: Facts) -> list[Finding]:
    found = []
    if str(facts.publisher) in block.publishers:
        found.append(Finding("block", "refused", f"the policy blocks the publisher {facts.publisher}"))
    if str(facts.manifest) in block.content:
        found.append(Finding("block", "refused", f"the policy blocks {facts.manifest}"))
    found += [
        Finding("block", "refused", f"the policy blocks {file.path}", file.path)
        for file in facts.files
        if str(file.root) in block.content
    ]
    for said in facts.found:
        if said.claim == "blocked" and str(said.by) in block.lists:
            why = f": {said.message}" if said.message else ""
            what = said.path or str(facts.manifest)
            found.append(Finding("block", "refused", f"{what} is on the block list of {said.by}{why}", said.path))
    return found


def _licence(licences: Licences, facts: Facts) -> list[Finding]:
    if not licences.allow and not licences.deny and licences.unknown:
        return []
    expression = to_spdx(facts.licence) if facts.licence else None
    if expression is None:
        text = "it says nothing of its licence that can be read"
        return [] if licences.unknown else [Finding("licences", "refused", text)]
    if permits(expression, _ids(licences.allow), _ids(licences.deny)):
        return [Finding("licences", "fine", f"its licence is {expression}")]
    return [Finding("licences", "refused", f"the policy does not accept its licence, {expression}")]


def _ids(texts: Sequence[str]) -> list[str]:
    return [expression for text in texts if (expression := to_spdx(text))]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_MAX} more" if len(names) > SHOWN_MAX else ""
    return ", ".join(names[:SHOWN_MAX]) + more


assert set(get_args(Format)) == set(FORMATS)
