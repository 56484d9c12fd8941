from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from p2phub.core import merkle
from p2phub.core.errors import HashMismatch
from p2phub.core.merkle import FILE_TREE, LOG_TREE, Frontier, TreeHash

LEAVES = [LOG_TREE.leaf(number.to_bytes(2, "big")) for number in range(3000)]
SIZES = range(41)
TREES = [LOG_TREE, FILE_TREE]

# The leaves and roots of the Certificate Transparency reference tests, for RFC 6962 §2.1.
CT_LEAVES = [
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"
]  # fmt: skip
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def naive_root(tree: TreeHash, leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962 §2.1, as it stands there."""
    if not leaves:
        return tree.empty
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return tree.node(naive_root(tree, leaves[:k]), naive_root(tree, leaves[k:]))


def naive_path(tree: TreeHash, m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH of RFC 6962 §2.1.1."""
    if len(leaves) == 1:
        return []
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    if m < k:
        return [*naive_path(tree, m, leaves[:k]), naive_root(tree, leaves[k:])]
    return [*naive_path(tree, m - k, leaves[k:]), naive_root(tree, leaves[:k])]


def naive_subproof(tree: TreeHash, m: int, leaves: Sequence[bytes], b: bool) -> list[bytes]:
    """SUBPROOF of RFC 6962 §2.1.2."""
    if m == len(leaves):
        return [] if b else [naive_root(tree, leaves)]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    if m <= k:
        return [*naive_subproof(tree, m, leaves[:k], b), naive_root(tree, leaves[k:])]
    return [*naive_subproof(tree, m - k, leaves[k:], False), naive_root(tree, leaves[:k])]


def check_consistency(old: int, new: int, proof: Sequence[bytes]) -> None:
    roots = merkle.root(LOG_TREE, LEAVES[:old]), merkle.root(LOG_TREE, LEAVES[:new])
    merkle.check_consistency(LOG_TREE, old, roots[0], new, roots[1], proof)


@st.composite
def a_leaf_of_a_tree(draw: st.DrawFn) -> tuple[int, int]:
    count = draw(st.integers(1, 300) | st.integers(1, len(LEAVES)))
    return count, draw(st.integers(0, count - 1))


@st.composite
def a_prefix_of_a_tree(draw: st.DrawFn) -> tuple[int, int]:
    count = draw(st.integers(1, 300) | st.integers(1, len(LEAVES)))
    return count, draw(st.integers(0, count))


def test_log_roots_are_those_of_rfc_6962() -> None:
    leaves = [LOG_TREE.leaf(bytes.fromhex(leaf)) for leaf in CT_LEAVES]

    assert [merkle.root(LOG_TREE, leaves[:count]).hex() for count in range(9)] == CT_ROOTS


@pytest.mark.parametrize("tree", TREES)
def test_the_root_is_that_of_the_definition(tree: TreeHash) -> None:
    for count in SIZES:
        assert merkle.root(tree, LEAVES[:count]) == naive_root(tree, LEAVES[:count])


@given(st.integers(0, len(LEAVES)))
def test_the_root_of_a_large_tree_is_that_of_the_definition(count: int) -> None:
    assert merkle.root(LOG_TREE, LEAVES[:count]) == naive_root(LOG_TREE, LEAVES[:count])


def test_a_frontier_has_the_root_at_every_size() -> None:
    frontier = Frontier(LOG_TREE)

    for count in range(300):
        assert (frontier.size, frontier.root()) == (count, merkle.root(LOG_TREE, LEAVES[:count]))
        assert len(frontier.peaks) == count.bit_count()
        frontier.append(LEAVES[count])


def test_a_frontier_goes_on_from_its_peaks() -> None:
    before = Frontier(LOG_TREE)
    for leaf in LEAVES[:77]:
        before.append(leaf)

    after = Frontier(LOG_TREE, before.size, list(before.peaks))
    after.append(LEAVES[77])

    assert after.root() == merkle.root(LOG_TREE, LEAVES[:78])


@pytest.mark.parametrize("tree", TREES)
def test_every_leaf_has_the_proof_of_the_definition(tree: TreeHash) -> None:
    for count in SIZES:
        leaves, root = LEAVES[:count], merkle.root(tree, LEAVES[:count])
        for index in range(count):
            proof = merkle.inclusion_proof(tree, leaves, index)

            assert list(proof) == naive_path(tree, index, leaves)
            assert merkle.root_from_inclusion(tree, leaves[index], index, count, proof) == root
            assert len(proof) <= (count - 1).bit_length()


@given(a_leaf_of_a_tree())
def test_every_leaf_has_a_proof_of_the_root(case: tuple[int, int]) -> None:
    count, index = case
    proof = merkle.inclusion_proof(LOG_TREE, LEAVES[:count], index)

    root = merkle.root_from_inclusion(LOG_TREE, LEAVES[index], index, count, proof)

    assert root == merkle.root(LOG_TREE, LEAVES[:count])


@given(a_leaf_of_a_tree(), st.data())
def test_a_proof_holds_for_no_other_leaf_index_or_hash(case: tuple[int, int], data: st.DataObject) -> None:
    count, index = case
    leaves = LEAVES[:count]
    root = merkle.root(LOG_TREE, leaves)
    proof = list(merkle.inclusion_proof(LOG_TREE, leaves, index))

    def proves(leaf: bytes, index: int, proof: list[bytes]) -> bool:
        try:
            return merkle.root_from_inclusion(LOG_TREE, leaf, index, count, proof) == root
        except HashMismatch:
            return False

    assert proves(leaves[index], index, proof)
    assert not proves(bytes(32), index, proof)
    assert not proves(leaves[index], index, [*proof, bytes(32)])
    assert not proves(leaves[index], index, [bytes(32), *proof])
    other = data.draw(st.integers(-1, count))
    if other != index:
        assert not proves(leaves[index], other, proof)
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        assert not proves(leaves[index], index, proof[:at] + proof[at + 1 :])
        assert not proves(leaves[index], index, [*proof[:at], bytes(32), *proof[at + 1 :]])
        assert not proves(leaves[index], index, proof[::-1]) or proof == proof[::-1]


def test_a_proof_of_another_length_is_refused_before_roots_are_compared() -> None:
    for count in range(1, 41):
        for index in range(count):
            proof = merkle.inclusion_proof(LOG_TREE, LEAVES[:count], index)
            with pytest.raises(HashMismatch, match="too long"):
                merkle.root_from_inclusion(LOG_TREE, LEAVES[index], index, count, (*proof, bytes(32)))
            if proof:
                with pytest.raises(HashMismatch, match="too short"):
                    merkle.root_from_inclusion(LOG_TREE, LEAVES[index], index, count, proof[:-1])


@pytest.mark.parametrize(("index", "count"), [(0, 0), (-1, 1), (1, 1), (5, 5), (6, 5)])
def test_a_leaf_that_is_not_in_the_tree_has_no_proof(index: int, count: int) -> None:
    with pytest.raises(IndexError):
        merkle.inclusion_proof(LOG_TREE, LEAVES[:count], index)
    with pytest.raises(HashMismatch, match="no leaf"):
        merkle.root_from_inclusion(LOG_TREE, LEAVES[0], index, count, ())


def test_every_prefix_has_the_proof_of_the_definition() -> None:
    for new in SIZES:
        for old in range(new + 1):
            proof = merkle.consistency_proof(LOG_TREE, LEAVES[:new], old)

            assert list(proof) == (naive_subproof(LOG_TREE, old, LEAVES[:new], True) if old else [])
            check_consistency(old, new, proof)


@given(a_prefix_of_a_tree())
def test_every_prefix_has_a_proof(case: tuple[int, int]) -> None:
    new, old = case

    check_consistency(old, new, merkle.consistency_proof(LOG_TREE, LEAVES[:new], old))


@given(a_prefix_of_a_tree(), st.data())
def test_a_tampered_consistency_proof_is_refused(case: tuple[int, int], data: st.DataObject) -> None:
    new, old = case
    proof = list(merkle.consistency_proof(LOG_TREE, LEAVES[:new], old))

    for tampered in ([*proof, bytes(32)], [bytes(32), *proof]):
        with pytest.raises(HashMismatch):
            check_consistency(old, new, tampered)
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        for tampered in (proof[:at] + proof[at + 1 :], [*proof[:at], bytes(32), *proof[at + 1 :]], []):
            with pytest.raises(HashMismatch):
                check_consistency(old, new, tampered)


def test_a_history_that_was_changed_has_no_proof_that_passes() -> None:
    for new in range(1, 41):
        forged = [*LEAVES[: new - 1], bytes(32)]
        for old in range(1, new + 1):
            proof = merkle.consistency_proof(LOG_TREE, forged, old)
            for changed in range(old):
                rewritten = [*LEAVES[:changed], bytes(32), *LEAVES[changed + 1 : new]]
                with pytest.raises(HashMismatch):
                    merkle.check_consistency(
                        LOG_TREE,
                        old,
                        merkle.root(LOG_TREE, LEAVES[:old]),
                        new,
                        merkle.root(LOG_TREE, rewritten),
                        merkle.consistency_proof(LOG_TREE, rewritten, old),
                    )
            if old < new:
                # The prefix is the true one: extending it differently is a proof, of another tree.
                merkle.check_consistency(
                    LOG_TREE,
                    old,
                    merkle.root(LOG_TREE, LEAVES[:old]),
                    new,
                    merkle.root(LOG_TREE, forged),
                    proof,
                )


def test_a_proof_is_for_its_two_sizes_only() -> None:
    for new in SIZES[2:]:
        for old in range(1, new):
            proof = merkle.consistency_proof(LOG_TREE, LEAVES[:new], old)
            roots = merkle.root(LOG_TREE, LEAVES[:old]), merkle.root(LOG_TREE, LEAVES[:new])
            for other in SIZES:
                if other != old:
                    with pytest.raises(HashMismatch):
                        merkle.check_consistency(LOG_TREE, other, roots[0], new, roots[1], proof)


def test_the_trivial_cases_of_consistency() -> None:
    root = merkle.root(LOG_TREE, LEAVES[:5])

    merkle.check_consistency(LOG_TREE, 0, LOG_TREE.empty, 5, root, ())
    merkle.check_consistency(LOG_TREE, 0, LOG_TREE.empty, 0, LOG_TREE.empty, ())
    merkle.check_consistency(LOG_TREE, 5, root, 5, root, ())
    for old, old_root, new, new_root, proof in [
        (0, root, 5, root, ()),
        (0, LOG_TREE.empty, 5, root, (root,)),
        (5, root, 5, bytes(32), ()),
        (5, root, 5, root, (root,)),
        (5, root, 4, root, ()),
        (4, root, 5, root, ()),
        (3, root, 5, root, ()),
    ]:
        with pytest.raises(HashMismatch):
            merkle.check_consistency(LOG_TREE, old, old_root, new, new_root, proof)


@pytest.mark.parametrize("old", [-1, 6])
def test_a_prefix_that_is_none_has_no_proof(old: int) -> None:
    with pytest.raises(IndexError):
        merkle.consistency_proof(LOG_TREE, LEAVES[:5], old)


def test_an_aligned_block_of_leaves_is_one_subtree() -> None:
    for block in (1, 2, 4, 8):
        for count in SIZES[1:]:
            blocks = [merkle.root(LOG_TREE, LEAVES[at : min(at + block, count)]) for at in range(0, count, block)]

            assert merkle.root(LOG_TREE, blocks) == merkle.root(LOG_TREE, LEAVES[:count])


def test_the_hashes_of_a_log_are_those_of_rfc_6962() -> None:
    assert LOG_TREE.leaf(b"data") == hashlib.sha256(b"\0data").digest()
    assert LOG_TREE.node(b"l" * 32, b"r" * 32) == hashlib.sha256(b"\1" + b"l" * 32 + b"r" * 32).digest()
    assert LOG_TREE.empty == hashlib.sha256().digest()


def test_the_hashes_of_a_file_are_those_of_the_spec() -> None:
    node = blake3(b"l" * 32 + b"r" * 32, derive_key_context="p2phub 1 file node").digest()

    assert FILE_TREE.leaf(b"data") == blake3(b"data", derive_key_context="p2phub 1 file leaf").digest()
    assert FILE_TREE.node(b"l" * 32, b"r" * 32) == node
    assert FILE_TREE.empty == blake3(b"", derive_key_context="p2phub 1 file node").digest()


@pytest.mark.parametrize("tree", TREES)
def test_a_leaf_cannot_pose_as_a_node(tree: TreeHash) -> None:
    assert tree.leaf(LEAVES[0] + LEAVES[1]) != tree.node(LEAVES[0], LEAVES[1])
