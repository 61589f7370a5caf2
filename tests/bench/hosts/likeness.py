"""What a host holds, in the words of `ip` and `nft`, without what is no choice of anybody's (numbers, counters)."""

import subprocess
from collections.abc import Iterator
from typing import Any

import msgspec

from appliance.host.netlink import FORWARDING
from appliance.topology import HOST, Machine, Namespace

LONGEST_S = 60.0
ASK = "ip -d -j addr; ip -j route; ip -6 -j route; nft -s list ruleset; cd /proc/sys/net"
LINK = ("ifname", "ifalias", "mtu", "master")
ROUTE = ("type", "dst", "gateway", "dev", "protocol", "metric", "prefsrc")
ADDRESS = ("family", "local", "prefixlen", "scope")
BRIDGE = ("stp_state", "forward_delay", "mcast_snooping")


def host(machine: Machine) -> dict[str, list[str]]:
    """Return, for the host and each namespace, one line for each thing that it holds."""
    return {namespace.key: sorted(_inside(namespace)) for namespace in machine.namespaces}


def _inside(namespace: Namespace) -> Iterator[str]:
    where = ["nsenter", f"--net=/run/netns/{namespace.name}"] if namespace.name != HOST else []
    values = [*FORWARDING, *(name for name, _ in namespace.sysctls)]
    asked = f"{ASK}; grep . {' '.join(values)}"
    done = subprocess.run([*where, "sh", "-ec", asked], capture_output=True, text=True, check=True, timeout=LONGEST_S)
    links, four, six, rest = done.stdout.split("\n", 3)
    for link in msgspec.json.decode(links):
        yield from _link(link, inner=namespace.name != HOST)
    for way in (*msgspec.json.decode(four), *msgspec.json.decode(six)):
        yield f"route {_chosen(way, ROUTE)}"
    yield rest


def _link(link: dict[str, Any], inner: bool) -> Iterator[str]:
    about = link.get("linkinfo", {})
    kind = about.get("info_kind", "")
    said = f"{_chosen(link, LINK)} {kind} {'UP' in link['flags']}"
    if inner:
        said += f" {link['address']}"
    if kind == "bridge":
        said += f" {_chosen(about['info_data'], BRIDGE)}"
    yield f"link {said} isolated {about.get('info_slave_data', {}).get('isolated')}"
    for address in link["addr_info"]:
        yield f"address {link['ifname']} {_chosen(address, ADDRESS)}"


def _chosen(found: dict[str, Any], names: tuple[str, ...]) -> str:
    return " ".join(f"{name}={found[name]}" for name in names if name in found)
