"""The same machine as a person with a shell makes it: one `ip -n … -batch` and one `nft -f` for each namespace.

It looks at nothing, checks nothing, and knows beforehand what there will be.
"""

import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from appliance.host.links import BRIDGE, OURS
from appliance.host.netlink import FORWARDING
from appliance.topology import HOST, Machine, Namespace, Veth

LONGEST_S = 300.0


def write(machine: Machine, folder: Path) -> Path:
    """Write what the tools read, and return the script that calls them."""
    texts: dict[str, Iterable[str]] = {"namespaces.ip": _spaces(machine), "host.ip": _host(machine)}
    for namespace in machine.namespaces:
        rules = next(ruleset.text for ruleset in machine.rulesets if ruleset.namespace == namespace.name)
        texts[f"{namespace.key}.nft"] = [rules]
        texts[f"{namespace.key}.sh"] = [*_settings(namespace), f"exec nft -f {folder}/{namespace.key}.nft"]
        if namespace.name != HOST:
            texts[f"{namespace.name}.ip"] = _inner(machine, namespace)
    script = folder / "make.sh"
    texts[script.name] = _script(machine, folder)
    for name, lines in texts.items():
        (folder / name).write_text("\n".join([*lines, ""]))
    return script


def make(script: Path) -> None:
    """Run it."""
    subprocess.run(["sh", "-e", str(script)], check=True, timeout=LONGEST_S)


def _script(machine: Machine, folder: Path) -> Iterator[str]:
    names = [namespace.name for namespace in machine.namespaces if namespace.name != HOST]
    yield f"ip -batch {folder}/namespaces.ip"
    yield f"sh -e {folder}/host.sh"
    for name in names:
        yield f"nsenter --net=/run/netns/{name} sh -e {folder}/{name}.sh"
    yield f"ip -batch {folder}/host.ip"
    for name in names:
        yield f"ip -n {name} -batch {folder}/{name}.ip"


def _settings(namespace: Namespace) -> Iterator[str]:
    if namespace.forwarding:
        yield from (f"echo 1 > /proc/sys/net/{name}" for name in FORWARDING)
    yield from (f"echo {value} > /proc/sys/net/{name}" for name, value in namespace.sysctls)


def _spaces(machine: Machine) -> Iterator[str]:
    yield from (f"netns add {namespace.name}" for namespace in machine.namespaces if namespace.name != HOST)


def _host(machine: Machine) -> Iterator[str]:
    yield "link set lo up"
    for bridge in machine.bridges:
        yield f"link add {bridge.name} type bridge mcast_snooping 0 stp_state 0 forward_delay 0"
        yield f"link set {bridge.name} alias {BRIDGE}{bridge.name} up"
    for veth in machine.veths:
        peer = f"peer name {veth.name} address {veth.mac} netns {veth.namespace}"
        yield f"link add {veth.host_name} type veth {peer}"
        yield f"link set {veth.host_name} alias {OURS} master {veth.bridge} up"
        if veth.isolated:
            yield f"link set {veth.host_name} type bridge_slave isolated on"


def _inner(machine: Machine, namespace: Namespace) -> Iterator[str]:
    yield "link set lo up"
    for veth in machine.veths:
        if veth.namespace == namespace.name:
            yield from _leg(veth)
    for route in machine.routes:
        if route.namespace == namespace.name:
            yield f"route add default via {route.gateway} proto {route.protocol}"


def _leg(veth: Veth) -> Iterator[str]:
    yield f"link set {veth.name} up"
    for address in veth.addresses:
        yield f"addr add {address} dev {veth.name}" + (" nodad" if ":" in address else "")
