"""A peer that does not end its message: `endless_peer ENDPOINT SERVER_KEY PUBLIC_KEY FRAME_BYTES MEBIBYTES`, run as a
module, its secret key on standard input. Prints `gone` once the other side has ended the connection.
"""

import sys

import zmq

from appliance.queue.auth import join_curve
from appliance.queue.keys import Keys

GONE_WITHIN_MS = 180_000


def send_endless(endpoint: str, server_key: str, keys: Keys, frame_bytes: int, mebibytes: int) -> bool:
    """Send one message of that many bytes and return whether the connection was ended over it.

    Its frames are one and the same here, so that it costs the sender little.
    """
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context, context.socket(zmq.DEALER) as peer:
        peer.linger = 0
        peer.reconnect_ivl = -1
        join_curve(peer, keys, server_key)
        monitor = peer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        peer.connect(endpoint)
        frame = zmq.Frame(bytes(frame_bytes))
        for _ in range(mebibytes * 2**20 // frame_bytes):
            peer.send(frame, zmq.SNDMORE, copy=False)
        peer.send(b"the end")
        ended = monitor.poll(GONE_WITHIN_MS) != 0
        peer.disable_monitor()
    return ended


if __name__ == "__main__":
    entrance, server, public, size, most = sys.argv[1:]
    secret = sys.stdin.readline().strip()
    print(
        "gone" if send_endless(entrance, server, Keys(public=public, secret=secret), int(size), int(most)) else "taken"
    )
