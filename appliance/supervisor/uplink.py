"""What the uplink was told by those outside."""

import ipaddress
import logging
from collections.abc import Iterable
from pathlib import Path

from appliance.contracts.lease import LEASE_FILE, Lease, read_lease
from appliance.errors import InvalidInput

log = logging.getLogger(__name__)


def lease(directory: Path) -> Lease:
    """Return what the uplink's clients were told, noted in the gateway's directory; an empty one where it cannot
    be read.
    """
    try:
        return read_lease(directory / LEASE_FILE)
    except InvalidInput as error:
        log.warning("%s", error)
        return Lease()


def by_family(addresses: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the IPv4 and the IPv6 addresses, without prefix length."""
    parsed = [ipaddress.ip_interface(address).ip for address in addresses]
    four = tuple(str(address) for address in parsed if address.version == 4)
    six = tuple(str(address) for address in parsed if address.version == 6)
    return four, six
