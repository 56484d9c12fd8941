"""Do what operations about witnesses say."""

from __future__ import annotations

from .. import witnesses
from ..handlers import Handlers
from ..operations.witnesses import AddWitness, ListWitnesses, RemoveWitness

HANDLERS: Handlers = {
    AddWitness: witnesses.add,
    ListWitnesses: witnesses.show,
    RemoveWitness: witnesses.remove,
}
