"""The machine of a bench: the firmware's own components with so many ARSRVs, as the supervisor lays it out."""

import msgspec

from appliance.config import Arsrv, Config
from appliance.supervisor.desired import Facts, desired
from appliance.supervisor.registry import specs
from appliance.topology import Machine


class Keys(dict[str, str]):
    """A public key for every name; none is used."""

    def __missing__(self, name: str) -> str:
        return f"key of {name}"


def config(servers: int) -> Config:
    """Return a configuration with so many ARSRVs, and everything else as it is by default."""
    return Config(arsrv=Arsrv(count=servers))


def network(servers: int) -> Machine:
    """Return what the kernel should hold: all but files and units, an uplink card, and WireGuard, which not every
    kernel has.
    """
    asked = config(servers)
    machine = desired(asked, specs(asked), Facts(public_keys=Keys())).machine
    return msgspec.structs.replace(machine, files=(), directories=(), units=(), wireguards=())
