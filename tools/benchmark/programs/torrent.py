"""BitTorrent with libtorrent: what a program that uses the library does, and no more.

    torrent.py make  SOURCE TORRENT                             a v2 torrent of a file or folder
    torrent.py serve TORRENT FOLDER LISTEN READY                seeds what lies in FOLDER; writes READY when it can
    torrent.py fetch TORRENT FOLDER LISTEN PEER …               ends when everything is verified and on disk
    torrent.py share TORRENT FOLDER LISTEN DONE PEER …          the same, but writes DONE and goes on as a seed

LISTEN and PEER are HOST:PORT. Peers find each other by these addresses alone.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import libtorrent as lt

PIECE = 2**20  # bytes; like the chunks of p2phub
# No search for strangers, and large enough buffers for a fast network.
SETTINGS = {
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    "in_enc_policy": 2,  # no encryption
    "out_enc_policy": 2,
    "allow_multiple_connections_per_ip": True,
    "unchoke_slots_limit": -1,
    "hashing_threads": 2,
    "max_out_request_queue": 2000,
    "max_queued_disk_bytes": 64 * 2**20,
    "send_buffer_watermark": 16 * 2**20,
    "send_buffer_watermark_factor": 200,
    "aio_threads": 4,
    "torrent_connect_boost": 100,
    "alert_mask": lt.alert.category_t.status_notification | lt.alert.category_t.storage_notification,
}


def main() -> None:
    verb, *arguments = sys.argv[1:]
    match verb, arguments:
        case "make", [source, torrent]:
            make(Path(source), Path(torrent))
        case "serve", [torrent, folder, listen, ready]:
            _, handle = join(torrent, folder, listen, (), seed=True)
            wait(lambda: handle.status().is_seeding)
            Path(ready).touch()
            wait(lambda: False)
        case "fetch", [torrent, folder, listen, *peers]:
            finish(*join(torrent, folder, listen, peers))
            os._exit(0)  # as the library takes its time to say goodbye to trackers that there are none of
        case "share", [torrent, folder, listen, done, *peers]:
            finish(*join(torrent, folder, listen, peers))
            Path(done).touch()
            wait(lambda: False)
        case _:
            sys.exit(__doc__)


def make(source: Path, torrent: Path) -> None:
    """Write the torrent of `source`, and hash it for that."""
    files = lt.list_files(str(source))
    creation = lt.create_torrent(files, PIECE, lt.create_torrent.v2_only)
    lt.set_piece_hashes(creation, str(source.parent))
    torrent.write_bytes(lt.bencode(creation.generate()))


def join(
    torrent: str, folder: str, listen: str, peers: Sequence[str], *, seed: bool = False
) -> tuple[lt.session, lt.torrent_handle]:
    """Take part in the swarm of `torrent`."""
    session = lt.session({**SETTINGS, "listen_interfaces": listen})
    parameters = lt.load_torrent_file(torrent)
    parameters.save_path = folder
    parameters.flags &= ~lt.torrent_flags.auto_managed & ~lt.torrent_flags.paused
    if seed:
        parameters.flags |= lt.torrent_flags.seed_mode
    handle = session.add_torrent(parameters)
    for peer in peers:
        host, _, port = peer.rpartition(":")
        handle.connect_peer((host, int(port)))
    return session, handle


def finish(session: lt.session, handle: lt.torrent_handle) -> None:
    """Wait until everything is here, and force it to disk."""
    wait(lambda: handle.status().is_seeding)
    handle.flush_cache()
    flushed = False
    while not flushed:
        session.wait_for_alert(1000)
        flushed = any(isinstance(alert, lt.cache_flushed_alert) for alert in session.pop_alerts())
    for folder, _, names in os.walk(handle.status().save_path):
        for name in names:
            file = os.open(os.path.join(folder, name), os.O_RDONLY)
            os.fdatasync(file)
            os.close(file)


def wait(is_done: Callable[[], bool]) -> None:
    while not is_done():
        time.sleep(0.02)


if __name__ == "__main__":
    main()
