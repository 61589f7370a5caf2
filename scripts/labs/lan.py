"""LANs as the kernel and dnsmasq are told about them. Everything here is pure: batches for ip(8) and command lines.

All bridges of a lab are in the keeper's network namespace, which forwards nothing: a LAN reaches another only through
a machine.
"""

from pathlib import Path

from scripts.labs.topology import (
    Host,
    Lan,
    Machine,
    Topology,
    address,
    gateway,
    mac,
    network4,
    network6,
    nic_names,
)

LEASE = "1h"


def bridge(topology: Topology, lan: str) -> str:
    """Return the name of the LAN's bridge; names of interfaces end at 15 characters, so it is the LAN's number."""
    return f"lan{[each.name for each in topology.lan].index(lan)}"


def bridges(topology: Topology) -> str:
    """Return the ip(8) batch that makes every LAN."""
    lines = ["link set lo up"]
    for lan in topology.lan:
        name = bridge(topology, lan.name)
        lines.append(f"link add {name} type bridge forward_delay 0 stp_state 0 mcast_snooping 0")
        lines.append(f"address add {gateway(topology, lan.name)}/{network4(topology, lan.name).prefixlen} dev {name}")
        inner = network6(lan)
        if inner is not None:
            lines.append(f"address add {inner[1]}/64 dev {name} nodad")
        lines.append(f"link set {name} up")
    return "\n".join(lines) + "\n"


def cable(topology: Topology, machine: Machine) -> tuple[str, str]:
    """Return the ip(8) batches for a machine's cards: one that pulls them out (and may fail), one that plugs them in.

    The far ends are in a namespace called like the machine, which becomes the container's own.
    """
    position = [each.name for each in topology.machine].index(machine.name)
    pull, plug = [f"netns delete {machine.name}"], [f"netns add {machine.name}"]
    for card, (nic, name) in enumerate(zip(machine.nics, nic_names(machine), strict=True)):
        near = f"m{position}n{card}"
        pull.insert(0, f"link delete {near}")
        plug.append(
            f"link add {near} type veth "
            f"peer name {name} address {mac(topology, machine.name, card)} netns {machine.name}"
        )
        plug.append(f"link set {near} addrgenmode none master {bridge(topology, nic.lan)} up")
    return "\n".join(pull) + "\n", "\n".join(plug) + "\n"


def host_cable(topology: Topology, host: Host) -> tuple[str, str]:
    """Return the ip(8) batches for an outside host: one for the keeper's namespace, one for the host's own."""
    position = [each.name for each in topology.host].index(host.name)
    near, far = [f"netns add {host.name}"], ["link set lo up"]
    for card, lan in enumerate(host.lans):
        name = f"h{position}n{card}"
        near.append(f"link add {name} type veth peer name {lan} netns {host.name}")
        near.append(f"link set {name} addrgenmode none master {bridge(topology, lan)} up")
        prefix = network4(topology, lan).prefixlen
        far.append(f"link set {lan} up")
        far.append(f"address add {address(topology, host.name, lan)}/{prefix} dev {lan}")
    far.append(f"route add default via {gateway(topology, host.lans[0])}")
    return "\n".join(near) + "\n", "\n".join(far) + "\n"


def dhcp_server(topology: Topology, lan: Lan, folder: Path) -> list[str]:
    """Return the dnsmasq command line that serves DHCP, router advertisements and names on the LAN."""
    network = network4(topology, lan.name)
    argv = [
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--log-facility=-",
        f"--interface={bridge(topology, lan.name)}", "--except-interface=lo", "--bind-dynamic",
        "--no-resolv", "--no-hosts", "--pid-file=",
        "--dhcp-authoritative", "--no-ping",
        f"--dhcp-leasefile={folder / f'{lan.name}.leases'}",
        f"--dhcp-range={network[200]},{network[249]},{network.netmask},{LEASE}",
        f"--dhcp-option=option:router,{gateway(topology, lan.name)}",
        f"--dhcp-option=option:dns-server,{','.join(lan.dns) or gateway(topology, lan.name)}",
        "--local=/test/", "--local-ttl=1",
    ]  # fmt: skip
    inner = network6(lan)
    if inner is not None:
        argv += ["--enable-ra", f"--dhcp-range={inner[0]},ra-only,64,{LEASE}"]
    for machine in topology.machine:
        for card, nic in enumerate(machine.nics):
            if nic.lan == lan.name:
                here = address(topology, machine.name, lan.name)
                argv.append(f"--dhcp-host={mac(topology, machine.name, card)},{here},{machine.name}")
                argv.append(f"--host-record={machine.name}.test,{here}")
    for host in topology.host:
        if lan.name in host.lans:
            argv.append(f"--host-record={host.name}.test,{address(topology, host.name, lan.name)}")
    return argv
