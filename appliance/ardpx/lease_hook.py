#!/usr/bin/python3 -IS
"""The script that dhcpcd runs at every change (dhcpcd-run-hooks(8)): it notes the uplink's addresses and resolvers in
lease.json. What a LAN's server says of resolvers is not heard: it has no say about the way out.

It stands alone on the standard library: it is started anew for each event, in isolated mode and without site packages.
Who reads the file is `appliance.contracts.lease`.
"""

import json
import os
import re
from pathlib import Path

ENDED = {"EXPIRE", "EXPIRE6", "NAK", "RELEASE", "RELEASE6", "STOP", "STOP6", "FAIL"}
LEASE_NAME = "lease.json"
UPLINK = "uplink"


def part_of(told: dict[str, str]) -> dict[str, list[str]]:
    """Return addresses and resolvers of one event's variables; both are empty when the lease has ended."""
    if told.get("reason") in ENDED:
        return {"addresses": [], "resolvers": []}
    addresses = []
    if "new_ip_address" in told:
        addresses.append(f"{told['new_ip_address']}/{told.get('new_subnet_cidr', '32')}")
    addresses += [f"{told[name]}/128" for name in _numbered(told, r"new_dhcp6_ia_na\d+_ia_addr\d+")]
    resolvers = told.get("new_domain_name_servers", "").split() + told.get("new_dhcp6_name_servers", "").split()
    for name in _numbered(told, r"nd\d+_rdnss\d+_servers"):
        resolvers += told[name].split()
    return {"addresses": addresses, "resolvers": resolvers}


def merged(before: str, told: dict[str, str]) -> str | None:
    """Return the new content of the file, or None for an event that says nothing about a lease."""
    protocol = told.get("protocol", "")
    if protocol not in ("dhcp", "dhcp6", "ra") or told.get("interface") != UPLINK:
        return None
    lease = json.loads(before) if before else {"version": 1}
    lease[protocol] = part_of(told)
    return json.dumps(lease, sort_keys=True) + "\n"


def _numbered(told: dict[str, str], pattern: str) -> list[str]:
    names = [name for name in told if re.fullmatch(pattern, name)]
    return sorted(names, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])


def main() -> None:
    """Replace the file beside this script in one step, so that a reader never sees half of it."""
    path = Path(__file__).with_name(LEASE_NAME)
    content = merged(path.read_text(encoding="utf-8") if path.exists() else "", dict(os.environ))
    if content is None:
        return
    fresh = path.with_name(f".{LEASE_NAME}.new")
    fresh.write_text(content, encoding="utf-8")
    fresh.replace(path)


if __name__ == "__main__":
    main()
