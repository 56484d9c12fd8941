"""Which witnesses are counted on."""

from __future__ import annotations

from msgspec import Struct

from . import Operation, Text


class WitnessInfo(Struct, frozen=True):
    """A witness, and how it stands with the own log."""

    name: str
    key: str  # NAME+ID+KEY
    place: str | None  # where it is asked
    size: int  # records of the own log that it cosigned last
    answered: int | None  # when it last cosigned, seconds since 1970
    problem: str | None  # why it did not when it was last asked


class AddWitness(Operation, tag="witness-add", frozen=True):
    """Count on a witness, and let it cosign the own log if it is said where it is asked."""

    result = WitnessInfo

    key: Text  # NAME+ID+KEY
    place: Text | None = None  # URL, or p2phub address


class RemoveWitness(Operation, tag="witness-remove", frozen=True):
    """Count on a witness no longer."""

    result = WitnessInfo

    name: Text  # of its key, or the whole key


class Witnesses(Struct, frozen=True):
    """The witnesses that are known, and what this node does as one."""

    witnesses: list[WitnessInfo]
    own_records: int  # in the log that this home publishes in
    stated: int | None  # when it was last stated what is newest of one's own, seconds since 1970
    key: str | None  # of the witness that this node is
    cosigned: int  # logs of which that witness cosigned a head


class ListWitnesses(Operation, tag="witnesses", frozen=True):
    """Show the witnesses that are counted on."""

    result = Witnesses
