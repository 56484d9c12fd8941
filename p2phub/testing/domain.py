"""An institution's domain at its best and worst: its web server, with TLS, on loopback.

    with Domain(tmp_path, "lab.example") as lab:
        lab.say(file)
        home = Home(tmp_path / "home", lab.environment)

The environment says where the domain is asked and which authority vouches for it. Behaviours are those of `webserver`.
"""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

from p2phub.core.wellknown import PATH

from .webserver import Behaviour, WebServer, make_certificate


class Domain:
    """A domain and its web server. A context manager, during which it runs."""

    def __init__(
        self,
        folder: Path,
        name: str = "lab.example",
        *behaviours: Behaviour,
        days: int = 1,
        certificate_of: str | None = None,
    ) -> None:
        """days: until its certificate expires. certificate_of: another domain, for which that is."""
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.files: dict[str, bytes] = {}
        authority, tls = make_certificate(folder, certificate_of or name, days=days)
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self.server = WebServer(self.files, *behaviours, tls=tls)
        self.environment = {
            "P2PHUB_DOMAINS_AT": f"{name}=127.0.0.1:{self.server.port}",
            "SSL_CERT_FILE": str(authority),
            "P2PHUB_LAN": "off",
        }

    def __enter__(self) -> Domain:
        self.server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.__exit__()

    @property
    def asked(self) -> int:
        """How often the file was asked for."""
        return sum(asked.target == PATH for asked in self.server.asked)

    def say(self, text: str | bytes) -> None:
        """Let the file be `text` from now on."""
        self.files[PATH.lstrip("/")] = text.encode() if isinstance(text, str) else text

    def name_publisher(self, namespace: str, *nodes: str, **more: Any) -> None:
        """Let the file name a publisher."""
        self.say(json.dumps({"p2phub": 1, "namespace": namespace, "nodes": list(nodes), **more}))
