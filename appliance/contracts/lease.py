"""What the uplink was told by DHCP, DHCPv6 and router advertisements: lease.json in the gateway's run directory."""

import ipaddress
from pathlib import Path

import msgspec

from appliance.errors import NOT_DECODED, InvalidInput

LEASE_FILE = "lease.json"


class LeasePart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one protocol said: addresses in CIDR form, resolvers in the order of preference."""

    addresses: tuple[str, ...] = ()
    resolvers: tuple[str, ...] = ()


class Lease(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The latest word of each protocol (`dhcp`: RFC 2131, `dhcp6`: RFC 8415, `ra`: RFC 4861 and RFC 8106)."""

    version: int = 1
    dhcp: LeasePart = LeasePart()
    dhcp6: LeasePart = LeasePart()
    ra: LeasePart = LeasePart()

    @property
    def addresses(self) -> tuple[str, ...]:
        """All addresses in CIDR form, IPv4 first, without those that the kernel derives from an advertised prefix."""
        return tuple(dict.fromkeys((*self.dhcp.addresses, *self.dhcp6.addresses, *self.ra.addresses)))

    @property
    def resolvers(self) -> tuple[str, ...]:
        """All resolvers once, IPv4 first. Link-local ones are left out: they mean nothing in another namespace."""
        told = dict.fromkeys((*self.dhcp.resolvers, *self.dhcp6.resolvers, *self.ra.resolvers))
        return tuple(resolver for resolver in told if not ipaddress.ip_address(resolver).is_link_local)


def read_lease(path: Path) -> Lease:
    """Return the lease in the file at `path`, an empty one without a file; raise InvalidInput where it is not one."""
    try:
        lease = msgspec.json.decode(path.read_bytes(), type=Lease)
        _ = lease.resolvers
    except FileNotFoundError:
        return Lease()
    except (OSError, *NOT_DECODED, ValueError) as error:
        raise InvalidInput(f"The uplink's lease {path} cannot be used: {error}.") from error
    return lease
