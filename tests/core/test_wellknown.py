from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from p2phub.core.errors import InvalidData
from p2phub.core.ids import NamespaceId
from p2phub.core.names import Address, InvalidName, check_namespace, check_new_name, is_domain, is_petname
from p2phub.core.wellknown import FILE_SIZE_MAX, WellKnown, format_well_known, parse_well_known
from p2phub.testing import values

NAMESPACE = values.identity().namespace
NODE = Address(values.node_record().node, "lab.example", 8627)


@given(st.integers(0, 16))
def test_what_is_written_is_read(count: int) -> None:
    file = WellKnown(NAMESPACE, (NODE,) * count)

    assert parse_well_known(format_well_known(file.namespace, file.nodes).encode()) == file


@given(st.binary(max_size=200))
@example(b"[" * FILE_SIZE_MAX)
@example(b"{" * FILE_SIZE_MAX)
@example(b'{"p2phub":1,"namespace":' + b"[" * 60_000)
@example(b" " * (FILE_SIZE_MAX + 1))
@example(b"\xff\xfe")
@example(b'\xef\xbb\xbf{"p2phub": 1}')
@example(b'{"p2phub": true, "namespace": ""}')
@example(b'{"p2phub": 1.0, "namespace": "\\ud800"}')
def test_nothing_else_is_believed_and_all_is_said_in_one_way(data: bytes) -> None:
    with pytest.raises(InvalidData):
        parse_well_known(data)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=60),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    )
)
def test_any_json_in_any_field_is_refused(value: object) -> None:
    good = json.loads(format_well_known(NAMESPACE, [NODE]))
    for field in good:
        if value != good[field] and not (field == "nodes" and value == []):
            with pytest.raises(InvalidData):
                parse_well_known(json.dumps({**good, field: value}).encode())


@pytest.mark.parametrize(
    "name", ["open", "api", "hf", "v1", str(NamespaceId(bytes(32))), "Lab", "a_b", "-a", "a.", ".a", ""]
)
def test_what_would_mean_something_else_is_no_new_name(name: str) -> None:
    with pytest.raises(InvalidName):
        check_new_name(name)


@given(st.text(alphabet="abz019-.", max_size=20))
def test_a_name_is_a_domain_or_a_petname_and_never_both(name: str) -> None:
    try:
        check_namespace(name)
    except InvalidName:
        assert not is_domain(name)
        assert not is_petname(name)
    else:
        assert is_domain(name) != is_petname(name)
        assert is_domain(name) == ("." in name)
