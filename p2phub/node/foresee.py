"""Say what a download would take: what is here, what would come over which links, and how long (spec/transfer.md §6).

    chunk lists, what is here ──▶ what is missing ──peers, origins, their rates, limits──▶ forecast

Nothing is fetched or written but chunk lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from p2phub.core.choices import LINK_CLASSES
from p2phub.core.filetree import ChunkList
from p2phub.core.ids import ContentId
from p2phub.protocol.forecast import Forecast, Offer, forecast
from p2phub.protocol.messages import Have
from p2phub.store.partial import unpack_bits

from .dedup import count_known, find_known
from .disk import on_disk
from .download import DownloadReport
from .events import Tell
from .node import Node
from .origins import Origins
from .survey import ask_who_has
from .trees import ask_for_chunk_lists, nobody_has


async def foresee(node: Node, roots: Sequence[ContentId], origins: Origins, tell: Tell) -> DownloadReport:
    """Return how a download of the files `roots` would go. Raises NotFound if nobody has one of them."""
    found, reasons = await ask_for_chunk_lists(node, roots, tell)
    unlisted = [root for root in roots if root not in found]
    if any(not origins.having(root) for root in unlisted):
        raise nobody_has(node, unlisted, reasons)
    report = DownloadReport()
    wanted = await on_disk(_what_is_missing, node, found, report)
    report.forecast = await _forecast(node, wanted, unlisted, origins)
    return report


class _Wanted:
    """What is missing of one file."""

    def __init__(self, root: ContentId, chunks: ChunkList, missing: list[int]) -> None:
        self.root = root
        self.missing = missing  # indices of chunks
        self.sizes = [chunks.length(index) for index in missing]
        self.count = len(chunks)

    def offered(self, held: bool | bytes) -> bytes:
        """Return a byte for each missing chunk, 1 if it is held; nothing is where what was said makes no sense."""
        if isinstance(held, bool):
            return bytes([held]) * len(self.missing)
        if len(held) != -(-self.count // 8):
            return bytes(len(self.missing))
        flags = unpack_bits(held, self.count)
        return bytes(flags[index] for index in self.missing)


def _what_is_missing(node: Node, lists: Mapping[ContentId, ChunkList], report: DownloadReport) -> list[_Wanted]:
    """Return what no file here has, and note in `report` what is here."""
    chunk_lists = list(lists.values())
    maps = node.store.readables.held_maps(lists)
    have = [
        bytearray([held]) * len(chunks) if isinstance(held, bool) else bytearray(held)
        for chunks, held in zip(chunk_lists, maps.values(), strict=True)
    ]
    for place, root in enumerate(lists):
        if arriving := node.arriving.get(root):
            have[place] = bytearray(arriving.have)
    places = find_known(node.store, chunk_lists, have)
    report.here_before = sum(
        chunks.length(index)
        for chunks, flags in zip(chunk_lists, have, strict=True)
        for index, here in enumerate(flags)
        if here
    )
    report.copied = count_known(chunk_lists, have, places)
    wanted = []
    for (root, chunks), flags in zip(lists.items(), have, strict=True):
        missing = [index for index, here in enumerate(flags) if not here and chunks.hash(index) not in places]
        if missing:
            wanted.append(_Wanted(root, chunks, missing))
    return wanted


async def _forecast(node: Node, wanted: Sequence[_Wanted], unlisted: Sequence[ContentId], origins: Origins) -> Forecast:
    # A file without a chunk list comes whole, from an origin: it counts as one chunk.
    sizes = [size for file in wanted for size in file.sizes] + [origins.size(root) for root in unlisted]
    offers = []
    rates = _measured(node)
    if wanted:
        answers = await ask_who_has(node, [file.root for file in wanted])
        rates = await on_disk(node.store.rates.of, [str(answer.peer.node) for answer in answers]) | rates
        for answer in answers:
            if answer.have is not None:
                link = await node.links.class_of(answer.peer, answer.host)
                offers.append(Offer(link, rates.get(str(answer.peer.node)), _has(wanted, unlisted, answer.have)))
    rates = await on_disk(node.store.rates.of, [origin.name for origin in origins.origins]) | rates
    for origin in origins.origins:
        flags = b"".join(bytes([file.root in origin.files]) * len(file.missing) for file in wanted)
        flags += bytes(root in origin.files for root in unlisted)
        offers.append(Offer(await node.links.class_of(origin.host), rates.get(origin.name), flags))
    settings = await node.links.refresh()
    return forecast(sizes, offers, {link: settings.limit(link).down for link in LINK_CLASSES})


def _has(wanted: Sequence[_Wanted], unlisted: Sequence[ContentId], have: Have) -> bytes:
    offered = (file.offered(held) for file, held in zip(wanted, have.held, strict=True))
    return b"".join(offered) + bytes(len(unlisted))


def _measured(node: Node) -> dict[str, float]:
    """Return the rates at which providers give to this node now."""
    explains = {arriving.explain for arriving in node.arriving.values()}
    return {provider.name: provider.rate for explain in explains for provider in explain().providers if provider.rate}
