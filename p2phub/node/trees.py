"""Get the chunk lists of files from peers, page by page and proven (spec/transfer.md §2)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from p2phub.core.errors import InvalidData, NotFound, PeerViolation
from p2phub.core.filetree import ChunkList, TreePage, check_page, join_pages, page_count
from p2phub.core.ids import ContentId
from p2phub.net.peerclient import PeerClient
from p2phub.protocol.messages import TREE_PAGES_MAX, PageRef

from .allowed import peers_about
from .asking import ask_in_turn
from .disk import on_disk
from .events import Tell
from .node import Node
from .receipts import show_receipts


async def ask_for_chunk_lists(
    node: Node, roots: Collection[ContentId], tell: Tell
) -> tuple[dict[ContentId, ChunkList], list[str]]:
    """Return the chunk lists of the files `roots`, asked of peers where they are not here.

    What no peer knows is left out; the second value says why peers did not answer.
    """
    found = await on_disk(node.store.chunk_lists.find_all, roots)

    async def ask(client: PeerClient) -> bool:
        wanted = [root for root in roots if root not in found]
        await show_receipts(node, client, wanted)
        lists = await chunk_lists_of(client, wanted)
        await on_disk(node.store.chunk_lists.save_all, lists)
        found.update(lists)
        return all(root in found for root in roots)

    reasons: list[str] = []
    if any(root not in found for root in roots):
        reasons = await ask_in_turn(node, await peers_about(node, roots), ask, tell, what="chunk lists")
    return found, reasons


def nobody_has(node: Node, roots: Sequence[ContentId], reasons: Sequence[str]) -> NotFound:
    """Return the error that no peer has the chunk lists of `roots`."""
    return NotFound(
        f"no peer we know of offers {roots[0]}" + (f" and {len(roots) - 1} more files" if roots[1:] else ""),
        hint="; ".join(reasons)
        or node.calls.apart()
        or "`p2phub peers ls` shows the peers and when each last answered",
    )


async def chunk_lists_of(client: PeerClient, roots: Collection[ContentId]) -> dict[ContentId, ChunkList]:
    """Return the chunk lists that one peer knows, each page checked against the file root."""
    pages: dict[ContentId, list[TreePage]] = {root: [] for root in roots}
    queue = [PageRef(root, 0) for root in roots]
    while queue:
        asked = queue[:TREE_PAGES_MAX]
        answer = (await client.trees(asked)).pages
        queue = queue[len(answer) :]
        for ref, page in zip(asked, answer, strict=False):
            if page is None:
                continue
            try:
                check_page(page, ref.root)
                if page.index != ref.index:
                    raise InvalidData(f"page {page.index} instead of {ref.index}")
            except InvalidData as exc:
                raise PeerViolation(f"{client} sent a wrong chunk list", peer=str(client.node)) from exc
            pages[ref.root].append(page)
            if ref.index == 0:
                queue += [PageRef(ref.root, index) for index in range(1, page_count(page.count))]
    # Pages of one file are asked for and answered in order.
    return {root: join_pages(got, root) for root, got in pages.items() if got and len(got) == page_count(got[0].count)}
