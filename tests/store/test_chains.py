"""How the index keeps identities."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2phub.core.encoding import encode
from p2phub.core.identity import Identity
from p2phub.protocol.messages import IdentityChain
from p2phub.store.chains import pack_chain, unpack_chain, unpack_identity
from p2phub.testing import values


@pytest.mark.parametrize("identity", [values.identity(), values.rotated_identity()], ids=["one key", "three documents"])
def test_an_identity_comes_back_from_fewer_bytes(identity: Identity) -> None:
    chain = encode(IdentityChain(identity.chain))
    packed = pack_chain(chain)

    assert unpack_chain(packed) == chain
    assert unpack_identity(packed) == identity
    assert len(packed) < 0.6 * len(chain)


def test_what_an_older_program_kept_is_read_as_it_is() -> None:
    chain = encode(IdentityChain(values.identity().chain))

    assert unpack_chain(chain) == chain


def test_a_packed_identity_reads_the_same_for_ever() -> None:
    """Whoever changes how it is packed must leave what is packed already readable."""
    packed = bytes.fromhex(
        "005b489c03e3f4269a579b6dc8b7f4b0fffc73995f8598935e8cddabdfe5820b77ba1faa6195c0ed01127462783033742703"
        "86274930105f2010340629903ec72c70cb6877883afeb7e2b2e8d2c5ebfd2e7b68997c29fbe75e1469e9797bee6df304e6fb"
        "c6b795db85cfcbeef9ac7894a7b7d220fdc12cae2305d56e850f0b94d901"
    )

    assert unpack_identity(packed) == values.identity()


@given(st.binary(max_size=300))
def test_damage_is_no_error_of_its_own(noise: bytes) -> None:
    unpack_chain(b"\0" + noise)
