"""WireGuard on the real kernel: a peer from outside enters through the uplink's 51820/udp."""

import socket

from tests.vm.conftest import Surroundings
from tests.vm.driver import VirtualMachine


def test_a_configured_peer_shakes_hands_and_pings_the_box(machine: VirtualMachine, surroundings: Surroundings) -> None:
    box_key = machine.output("ip", "netns", "exec", "arvpn", "wg", "show", "wg0", "public-key")
    with socket.create_connection(("127.0.0.1", machine.forwards.https.host_port)):
        pass
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.connect(("127.0.0.1", machine.forwards.vpn.host_port))
        surroundings.vpn_peer.shake_hands(channel, box_key)
        surroundings.vpn_peer.ping(channel, "10.156.32.7", "10.156.32.1")
