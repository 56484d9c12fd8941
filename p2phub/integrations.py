"""Set this process up so that tools for other hubs work through the running node.

import p2phub.integrations
p2phub.integrations.connect()
from transformers import AutoModel      # only now
AutoModel.from_pretrained("NAMESPACE/MODEL")
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping

from p2phub.core.errors import HubError, NotFound
from p2phub.gateway.client import Daemon, find_daemon
from p2phub.store.layout import Layout


def connect(environment: MutableMapping[str, str] = os.environ) -> str:
    """Point huggingface_hub, and what stands on it, at the node of this home; returns the URL.

    The node's token is set too, so that the process can publish. Raises NotFound if no node
    runs, HubError if huggingface_hub was imported already: it looks at its settings once.
    """
    if "huggingface_hub" in sys.modules:
        raise HubError(
            "huggingface_hub was imported before, and does not look at its settings again",
            hint="call p2phub.integrations.connect() before importing transformers, datasets and the like",
        )
    variables = hub_variables()
    environment.update(variables)
    return variables["HF_ENDPOINT"]


def hub_variables() -> dict[str, str]:
    """Return the environment variables that clients of another hub need for the node. Raises NotFound."""
    daemon = running_node()
    return {"HF_ENDPOINT": daemon.local_url, "HF_TOKEN": daemon.token}


def running_node() -> Daemon:
    """Return the node that runs for this home. Raises NotFound if none does."""
    daemon = find_daemon(Layout.from_environment())
    if daemon is None:
        raise NotFound("no node runs for this home", hint="start one: p2phub node")
    return daemon
