"""Vectors of connections and of files on disk: tickets and frames, certificates, a partial's map, a log, a key."""

from __future__ import annotations

import struct

from p2phub.core.certificate import certificate
from p2phub.core.encoding import encode
from p2phub.core.filetree import ChunkList, pack
from p2phub.core.frames import Sealer
from p2phub.core.ids import ContentId, NodeId
from p2phub.protocol import messages
from p2phub.testing import values

from .plain import Json


def ticket() -> messages.Ticket:
    """Return the ticket of the vectors."""
    return messages.Ticket(
        id=values.content("ticket id", 16),
        client_key=values.content("ticket client key", 16),
        server_key=values.content("ticket server key", 16),
        ttl=messages.TICKET_TTL_S,
    )


def bulk() -> Json:
    given = ticket()
    root = ContentId(values.content("root", 32))
    pieces = [values.content("piece 0", 1000), values.content("piece 1", 40)]
    spans = (messages.ByteRange(root, 0, 1000), messages.ByteRange(root, 5000, 40))
    client = [encode(messages.SpansQuery(spans)), encode(messages.SpansQuery(spans[:1]))]
    server = [
        encode(messages.BulkAnswer(200, 1040)),
        *pieces,
        encode(messages.BulkAnswer(429, 0, 2, "all upload slots are taken")),
    ]
    directions: Json = {}
    for name, key, plaintexts in (("client", given.client_key, client), ("server", given.server_key, server)):
        sealer = Sealer(key)
        directions[name] = [{"plaintext": plaintext, "frame": sealer.seal(plaintext)} for plaintext in plaintexts]
    first, second = (frame["frame"] for frame in directions["server"][:2])
    other = Sealer(given.client_key).seal(server[0])
    changed = first[:-1] + bytes([first[-1] ^ 1])
    garbled = first[:4] + bytes([first[4] ^ 1]) + first[5:]
    # A length that was changed on the way, with as many bytes as it says.
    shorter = struct.pack(">I", len(first) - 21) + first[4:-1]
    return {
        "ticket": given,
        "preface": messages.BULK_PREFACE + given.id,
        "client": directions["client"],
        "server": directions["server"],
        "invalid_first_frames_of_the_server": [
            {"frame": second, "why": "the second frame in the place of the first"},
            {"frame": other, "why": "made with the client's key"},
            {"frame": changed, "why": "another tag"},
            {"frame": garbled, "why": "another ciphertext"},
            {"frame": shorter, "why": "another length"},
            {"frame": struct.pack(">I", 0) + bytes(16), "why": "no plaintext"},
            {"frame": struct.pack(">I", messages.SPAN_BYTES_MAX), "why": "more than 1048576 bytes of plaintext"},
        ],
    }


def certificates() -> Json:
    # The public key of the second begins with a bit of 1, which asks for a zero byte before the serial number.
    keys = [values.key(name) for name in ("node", "server")]
    return {
        "certificates": [
            {"seed": key.seed, "node": str(NodeId(key.public_key)), "certificate": certificate(key)} for key in keys
        ]
    }


def disk_files() -> Json:
    chunks = ChunkList(b"".join(pack(1000, values.content(f"chunk {number}", 32)) for number in range(10)))
    entries = [entry.data for entry in values.log()[:2]]
    key = values.key("publisher")
    return {
        "partial_map": {
            "chunk_count": len(chunks),
            "have": [0, 9],
            "boot": bytes(16),
            "file": b"p2phub partial 1" + bytes(16) + b"\x01\x02",
        },
        "log": {
            "entries": entries,
            "file": b"".join(struct.pack(">I", len(data)) + data for data in entries),
        },
        "key": {"seed": key.seed, "file": f"p2phub-key-1 {key.seed.hex()}\n"},
    }
