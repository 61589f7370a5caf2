"""A place outside whose only way is a WireGuard tunnel to the machine: a network namespace, and user space that carries
its packets, since the test host's kernel may have no WireGuard.
"""

import contextlib
import fcntl
import os
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scripts.labs import kernel
from scripts.virtual.ports import LOOPBACK
from tests.vm.wireguard import Peer

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_CARD = "tunnel"
_MTU = 1420
_KEEPALIVE_S = 5.0
_REKEY_S = 60.0  # the other side forgets a session after 180 s (section 6.1 of the WireGuard paper)
_LARGEST = 65536


class Tunnel:
    """Programs started with the command prefix `inside` are in the place; the tunnel is down until `up`."""

    def __init__(self, peer: Peer, port: int, their_key: str, space: Path, card: int) -> None:
        self.inside = ("nsenter", f"--net={space}", "--")
        self._peer = peer
        self._their_key = their_key
        self._card = card
        self._channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._channel.connect((LOOPBACK, port))
        self._wake_out, self._wake_in = os.pipe()
        self._carrier: threading.Thread | None = None
        self._deaf = False

    def up(self) -> None:
        """Shake hands and carry from now on; what waited meanwhile is lost."""
        while select.select([self._card], [], [], 0)[0]:
            os.read(self._card, _LARGEST)
        self._deaf = False
        self._shake_hands()
        self._carrier = threading.Thread(target=self._carry, name="tunnel")
        self._carrier.start()

    def deafen(self) -> None:
        """From now on until the next `up` packets go out and none comes in."""
        self._deaf = True

    def down(self) -> None:
        """Carry no more; nobody is told."""
        if self._carrier is not None:
            os.write(self._wake_in, b"!")
            self._carrier.join()
            self._carrier = None

    def _shake_hands(self) -> None:
        self._peer.shake_hands(self._channel, self._their_key)
        self._channel.send(self._peer.seal(b""))  # before this the other side does not use the session
        self._agreed_at = time.monotonic()

    def _carry(self) -> None:
        descriptors = (self._card, self._channel.fileno(), self._wake_out)
        while self._wake_out not in (ready := select.select(descriptors, (), (), _KEEPALIVE_S)[0]):
            if self._card in ready:
                self._channel.send(self._peer.seal(os.read(self._card, _LARGEST)))
            elif not ready:
                self._channel.send(self._peer.seal(b""))
            if self._channel.fileno() in ready:
                self._take_in(self._peer.unseal(self._channel.recv(_LARGEST)))
            if time.monotonic() - self._agreed_at > _REKEY_S:
                self._shake_hands()
        os.read(self._wake_out, 1)

    def _take_in(self, packet: bytes) -> None:
        if packet and not self._deaf:
            os.write(self._card, packet)

    def close(self) -> None:
        """End it."""
        self.down()
        self._channel.close()
        for descriptor in (self._card, self._wake_in, self._wake_out):
            os.close(descriptor)


@contextlib.contextmanager
def tunnel(peer: Peer, port: int, their_key: str, addresses: Sequence[str]) -> Iterator[Tunnel]:
    """A place with these addresses, its tunnel up; the machine's WireGuard answers at a UDP port of the loopback."""
    keep = ("setpriv", "--pdeathsig", "KILL", "--", "unshare", "--net", "sh", "-c", "echo there; exec sleep infinity")
    with subprocess.Popen(keep, stdout=subprocess.PIPE, text=True) as keeper:
        try:
            assert keeper.stdout is not None
            assert keeper.stdout.readline() == "there\n"
            space = Path(f"/proc/{keeper.pid}/ns/net")
            with ThreadPoolExecutor(1) as visitor:
                card = visitor.submit(_card_in, space).result()
            with contextlib.closing(Tunnel(peer, port, their_key, space, card)) as tunnel:
                for command in (
                    "link set lo up",
                    f"link set {_CARD} mtu {_MTU} up",
                    *(f"address add {address} dev {_CARD}" for address in addresses),
                    f"-4 route add default dev {_CARD}",
                    f"-6 route add default dev {_CARD}",
                ):
                    subprocess.run([*tunnel.inside, "ip", *command.split()], check=True, timeout=30)
                tunnel.up()
                yield tunnel
        finally:
            keeper.kill()


def _card_in(space: Path) -> int:
    """Make the place's card and return its descriptor; the calling thread is in the place from then on."""
    with space.open() as there:
        kernel.setns(there.fileno(), kernel.CLONE_NEWNET)
    card = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(card, _TUNSETIFF, struct.pack("16sH22x", _CARD.encode(), _IFF_TUN | _IFF_NO_PI))
    return card
