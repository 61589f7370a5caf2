"""Ports of this computer through which the virtual machine is reached."""

import socket

import msgspec

from scripts.virtual.errors import NoFreePort

LOOPBACK = "127.0.0.1"
_TRIES = 200


class Forward(msgspec.Struct, frozen=True):
    """A port of this computer's loopback that leads to one of the machine's uplink."""

    protocol: str
    host_port: int
    guest_port: int

    @property
    def argument(self) -> str:
        """The `hostfwd=` option of QEMU's user-mode network."""
        return f"hostfwd={self.protocol}:{LOOPBACK}:{self.host_port}-:{self.guest_port}"


class Forwards(msgspec.Struct, frozen=True):
    """The ports that the appliance offers to the outside."""

    https: Forward
    http: Forward
    vpn: Forward

    @property
    def outside_url(self) -> str:
        """Where a browser on this computer reaches the appliance."""
        return f"https://{LOOPBACK}:{self.https.host_port}/"

    @property
    def host_ports(self) -> tuple[int, int, int]:
        """The ports of this computer, as `choose` takes them."""
        return (self.https.host_port, self.http.host_port, self.vpn.host_port)

    @property
    def arguments(self) -> tuple[str, ...]:
        """The `hostfwd=` options of all of them."""
        return (self.https.argument, self.http.argument, self.vpn.argument)


def free_port(first: int, *, protocol: str = "tcp") -> int:
    """The first port from `first` on that can be bound on the loopback now; `NoFreePort` after 200 tries."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    last = min(first + _TRIES, 65536) - 1
    for port in range(first, last + 1):
        with socket.socket(socket.AF_INET, kind) as candidate:
            # As QEMU binds: a TCP connection in TIME_WAIT does not count as busy, while two UDP sockets with this
            # option (QEMU sets it after its bind) would share a port.
            if protocol == "tcp":
                candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind((LOOPBACK, port))
                if protocol == "tcp":
                    candidate.listen(1)
            except OSError:
                continue
            return port
    raise NoFreePort(f"None of the {protocol} ports {first} to {last} of {LOOPBACK} is free.")


def choose(https: int = 8443, http: int = 8080, vpn: int = 51820) -> Forwards:
    """Free ports for the appliance, as near to the given ones as possible."""
    return Forwards(
        https=Forward("tcp", free_port(https), 443),
        http=Forward("tcp", free_port(http), 80),
        vpn=Forward("udp", free_port(vpn, protocol="udp"), 51820),
    )
