"""Find what configurations would have a tool run: programs, their own or of other repositories (spec/rules.md §3).

    config.json: {"auto_map": {"AutoModel": "somebody/else--modeling.Model"}}

Tools run these only if they are told to (`trust_remote_code`), and then fetch them by name from whatever
hub they ask: a program of another repository comes past what is checked here. So it is said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from p2phub.core.description import CONFIG_SIZE_MAX
from p2phub.core.manifest import FileEntry
from p2phub.store.store import Store

CONFIGURATIONS = ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
SHOWN_MAX = 5  # programs of one configuration


def named_programs(store: Store, files: Sequence[FileEntry]) -> list[str]:
    """Return a sentence for each configuration among `files`, all of them in the store, that names programs."""
    found = []
    for file in files:
        if file.path.rsplit("/", 1)[-1] in CONFIGURATIONS and file.size <= CONFIG_SIZE_MAX:
            programs = sorted(set(_programs(store, file)))
            if programs:
                more = f" and {len(programs) - SHOWN_MAX} more" if len(programs) > SHOWN_MAX else ""
                names = ", ".join(programs[:SHOWN_MAX]) + more
                found.append(f"{file.path} names programs, which tools run if they are told to trust them: {names}")
    return found


def _programs(store: Store, file: FileEntry) -> Iterator[str]:
    data = store.readables.read_small(file.root, CONFIG_SIZE_MAX)
    if data is None:
        return
    try:
        config = json.loads(data)
    except (ValueError, RecursionError):
        return
    names = config.get("auto_map") if isinstance(config, dict) else None
    stack = [names]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            stack += value.values()
        elif isinstance(value, list):
            stack += value
        elif isinstance(value, str):
            yield value
