"""Topologies for the lab's own tests: machines without the appliance's units, so that only the lab can be at fault."""

from scripts.labs.topology import Host, Lan, Machine, Nic, Topology

OURS = ("identity", "supervisor", "health", "screen@tty1", "screen@ttyS0")
BARE = tuple(f"systemd.mask=alpha-ren-{unit}.service" for unit in OURS)


def one_box(**fields: object) -> Topology:
    """Return a bare box and an outside host on one LAN; `fields` replace those of the box."""
    box = Machine(**{"name": "box", "nics": (Nic(lan="uplink"),), "cmdline": BARE, **fields})  # type: ignore[arg-type] # named by the caller
    return Topology(
        lan=(Lan(name="uplink", ipv6="2001:db8:1::/64"),),
        machine=(box,),
        host=(Host(name="outside", lans=("uplink",)),),
    )


def only_hosts() -> Topology:
    """Return two LANs with a host on each, and one host on both."""
    return Topology(
        lan=(Lan(name="left"), Lan(name="right")),
        host=(
            Host(name="west", lans=("left",)),
            Host(name="east", lans=("right",)),
            Host(name="bridge", lans=("left", "right")),
        ),
    )
