"""Where a name leads: resolve it, with a limit, and tell public addresses from others (spec/origins.md §3)."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

_UNICAST = ip_network("2000::/3")  # what is given out of IPv6 for hosts (RFC 4291 §2.4 and IANA's registry)
_TEREDO = ip_network("2001::/32")  # RFC 4380: may lead to any IPv4 address
# Networks whose addresses hold an IPv4 address that is the real end: RFC 6052, RFC 3056.
_NAT64 = ip_network("64:ff9b::/96")
_6TO4 = ip_network("2002::/16")


def is_public(address: str) -> bool:
    """Say whether everybody on the internet means the same host by the IP address `address`."""
    parsed = ip_address(address.partition("%")[0])
    if isinstance(parsed, IPv4Address):
        return _is_global(parsed)
    if (embedded := _embedded(parsed)) is not None:
        return _is_global(embedded)
    return parsed in _UNICAST and parsed not in _TEREDO and _is_global(parsed)


def resolve(host: str, port: int, wait: Callable[[threading.Event], None]) -> list[str]:
    """Return the IP addresses of `host`, in the order in which they are to be tried.

    wait: waits until the event is set, or raises. The system's resolver knows no
    deadline, so it runs in a thread that nobody need wait for. Raises OSError.
    """
    found: list[str] = []
    errors: list[OSError] = []
    done = threading.Event()

    def look_up() -> None:
        try:
            for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                if (text := str(address[0])) not in found:
                    found.append(text)
        except UnicodeError:
            errors.append(OSError(errno.EINVAL, "it is no host name"))
        except OSError as exc:
            errors.append(exc)
        finally:
            done.set()

    threading.Thread(target=look_up, name="resolve", daemon=True).start()
    wait(done)
    if errors:
        raise errors[0]
    if not found:
        raise OSError(errno.EHOSTUNREACH, "its name has no address")
    return found


def _is_global(address: IPv4Address | IPv6Address) -> bool:
    return address.is_global and not address.is_multicast


def _embedded(address: IPv6Address) -> IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _6TO4:
        return address.sixtofour
    return IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None
