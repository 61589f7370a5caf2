"""What may happen to a whole box, drawn at random: all that a throwaway machine may suffer, and dead units and guests
beside it, which take a real systemd and real emulators.
"""

import json
from typing import Any

from hypothesis import strategies as st

from appliance.topology import HOST, Bridge, Machine, Namespace, Tap, Veth
from tests.lab.box import Box
from tests.unit.host import damage
from tests.unit.host.damage import Damage
from tests.unit.host.shown import SHOWN, without_numbers

UNIT = {
    "killed": "systemctl kill --signal=KILL {unit}",
    "stopped": "systemctl stop --no-block {unit}",
    "text gone": "rm -f /run/systemd/system/{unit}; systemctl daemon-reload",
    "text altered": "echo CPUWeight=1 >> /run/systemd/system/{unit}; systemctl daemon-reload",
    "stopped without its text": "rm -f /run/systemd/system/{unit}; systemctl daemon-reload; systemctl stop {unit}",
}
"""What a dead unit, or one that will not live again, may come from."""

GUEST = {
    "emulator killed": "pid=$(systemctl show -P MainPID {guest}); kill -KILL $(cat /proc/$pid/task/$pid/children)",
    "keeper killed": "systemctl kill --kill-whom=main --signal=KILL {guest}",
    "all killed": "systemctl kill --signal=KILL {guest}",
    "powered down": "systemctl stop --no-block {guest}",
}

PIN = {
    damage.REPLACED: "umount -l {pin}; rm -f {pin}; ip netns add {namespace}",
    damage.REMOVED: "umount -l {pin}; rm -f {pin}",
    damage.ADDED: "ip netns add more",
}
"""Units stay behind in a namespace that lost its name, so `damage.ORPHANED` is the same as the first."""

UPLINK = "ardpx"
"""Its namespace holds the card. In a lab that is one end of a cable, which dies with the namespace and takes the other
end along, where a real card would go back to the host; so its pin is left alone.
"""


class Target:
    """What there is on a box that something can happen to."""

    def __init__(self, box: Box) -> None:
        names = [line.split()[0] for line in _said(box, HOST, "ip netns").splitlines()]
        links = {name: _links(box, name) for name in (HOST, *names)}
        ports = {(each["ifindex"], each["link_index"]): each for each in links[HOST].values() if "master" in each}
        legs = [
            (name, leg, ports[leg["link_index"], leg["ifindex"]])
            for name in names
            for leg in links[name].values()
            if (leg.get("link_index"), leg["ifindex"]) in ports
        ]
        self.machine = Machine(
            namespaces=tuple(Namespace(name=name) for name in (HOST, *names)),
            bridges=tuple(Bridge(name=name) for name in sorted({port["master"] for _, _, port in legs})),
            veths=tuple(
                Veth(
                    namespace=name,
                    name=leg["ifname"],
                    host_name=port["ifname"],
                    bridge=port["master"],
                    mac=leg["address"],
                    addresses=(),
                )
                for name, leg, port in legs
            ),
            taps=tuple(
                Tap(namespace=name, name=each["ifname"], mac=each["address"], group=0, addresses=())
                for name in names
                for each in links[name].values()
                if each.get("linkinfo", {}).get("info_kind") == "tun"
            ),
        )
        self.units = [unit["name"] for unit in box.status()["units"]]
        self.guests = [unit for unit in self.units if unit.endswith("-vm.service")]

    def kinds(self) -> list[tuple[str, str]]:
        """Return every kind of damage that can be done here: what it is done to, and which."""
        kinds = [each for each in damage.KINDS if self.machine.taps or each[0] != "cable"]
        kinds += [("unit", kind) for kind in UNIT]
        return [*kinds, *(("guest", kind) for kind in GUEST if self.guests)]

    def deaths(self) -> list[tuple[str, str]]:
        """Return the kinds of death there can be: of guests where there are any, of units otherwise."""
        return [each for each in self.kinds() if each[0] == ("guest" if self.guests else "unit")]

    def damages(self, where: str, kind: str) -> st.SearchStrategy[Damage]:
        """Return what damage of a kind there may be."""
        if where == "unit":
            return st.sampled_from(self.units).map(lambda unit: Damage(HOST, UNIT[kind].replace("{unit}", unit)))
        if where == "guest":
            return st.sampled_from(self.guests).map(lambda guest: Damage(HOST, GUEST[kind].replace("{guest}", guest)))
        if where == "pin":
            names = [each.name for each in self.machine.namespaces if each.name not in (HOST, UPLINK)]
            return st.sampled_from(names).map(lambda name: self._pin(kind, name))
        return damage.damages(self.machine, where, kind)

    def _pin(self, kind: str, name: str) -> Damage:
        command = PIN[damage.REPLACED if kind == damage.ORPHANED else kind]
        return Damage(HOST, command.replace("{pin}", f"/run/netns/{name}").replace("{namespace}", name))


def shown(box: Box, target: Target) -> dict[str, object]:
    """What `ip`, `nft` and systemd say of a box, without the numbers that differ each time."""
    machine = target.machine
    ours = {each.name for each in machine.bridges} | {each.host_name for each in machine.veths}
    network = {
        each.name: without_numbers(said, ours if each.name == HOST else set())
        for each in machine.namespaces
        if (said := _said(box, each.name, SHOWN))
    }
    return {**network, "units": _said(box, HOST, "cd /run/systemd/system && head -v -n -0 alpha-ren-*")}


def amiss(box: Box, target: Target) -> list[str]:
    """Which units systemd has not read, or have no process in the namespace that has the name it should have."""
    script = (
        "for unit; do set -- $(systemctl show -P MainPID -P NetworkNamespacePath -P LoadState $unit); "
        '[ "$3" = loaded ] && [ "$(stat -L -c %i /proc/$1/ns/net)" = "$(stat -L -c %i $2)" ] || echo $unit; done'
    )
    return box.machine.run(["sh", "-c", script, "sh", *target.units], deadline_s=60.0).stdout.split()


def happen(box: Box, what: Damage) -> None:
    """Let a damage happen; what it is about may be gone by an earlier one."""
    _said(box, what.namespace, what.command)


def _said(box: Box, namespace: str, command: str) -> str:
    enter = [] if namespace == HOST else ["nsenter", f"--net=/run/netns/{namespace}"]
    done = box.machine.run([*enter, "sh", "-c", command], check=False, deadline_s=120.0)
    assert ": not found" not in done.stderr, done.stderr  # the shell's word for a command that the box lacks
    return done.stdout


def _links(box: Box, namespace: str) -> dict[str, dict[str, Any]]:
    return {each["ifname"]: each for each in json.loads(_said(box, namespace, "ip -j -d link"))}
