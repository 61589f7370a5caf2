"""What a machine is, read with `ip` and `nft` rather than with the code that made it."""

import json
import subprocess

from appliance.host.box import Box
from appliance.topology import HOST, Machine

SHOWN = "ip -j -d addr; ip -j route; ip -j -6 route; nft list ruleset"


def typed(box: Box, namespace: str, command: str) -> str:
    """What a shell says inside a namespace. What is to be damaged may be gone already."""
    with box.namespaces.open(namespace) as descriptor:
        argv = ["nsenter", f"--net=/proc/self/fd/{descriptor}", "sh", "-c", command]
        done = subprocess.run(argv, pass_fds=(descriptor,), capture_output=True, text=True, timeout=30, check=False)
    return done.stdout


def shown(box: Box, wanted: Machine) -> dict[str, list[object]]:
    """What `ip` and `nft` say of every namespace, without the numbers that differ each time."""
    ours = {each.name for each in wanted.bridges} | {each.host_name for each in wanted.veths}
    return {
        each.name: without_numbers(typed(box, each.name, SHOWN), ours if each.name == HOST else set())
        for each in wanted.namespaces
    }


def without_numbers(said: str, only: set[str]) -> list[object]:
    """What was said after SHOWN was typed: of the links with these names, or of all and the routes, too."""
    links, four, six, *rules = said.split("\n", 3)
    found: list[object] = [*rules, *([] if only else [_routes(four), _routes(six)])]
    for link in json.loads(links):
        if not only or link["ifname"] in only:
            slave = link.get("linkinfo", {}).get("info_slave_data", {})
            mac = link["address"] if not only else ""
            texts = sorted(
                f"{each['local']}/{each['prefixlen']}" for each in link["addr_info"] if each["scope"] != "link"
            )
            up = "UP" in link["flags"]
            facts = (link["ifname"], up, link["mtu"], mac, link.get("master"), slave.get("isolated"), texts)
            found.append(facts)
    return sorted(found, key=str)


def _routes(said: str) -> list[tuple[object, ...]]:
    routes = [each for each in json.loads(said) if not str(each["dst"]).startswith("fe80")]
    return sorted(tuple(each.get(key) for key in ("type", "dst", "gateway", "dev", "metric")) for each in routes)
