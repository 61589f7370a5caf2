"""A WireGuard peer in user space, enough of it to shake hands and ping: the test host's kernel may have no WireGuard.

After J. A. Donenfeld, "WireGuard: Next Generation Kernel Network Tunnel" (NDSS 2017), section 5.4, whose symbols the
names follow: `chain` is C, `digest` is H.
"""

import base64
import hashlib
import hmac
import os
import socket
import struct
import time

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

_CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
_IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
_TAI64_EPOCH = 2**62 + 10
_INITIATION, _RESPONSE, _DATA = 1, 2, 4
_HANDSHAKE_TRIES = 6
_ANSWER_DEADLINE_S = 5.0


class NoAnswer(Exception):
    """The other side did not answer."""


def _hash(data: bytes) -> bytes:
    return hashlib.blake2s(data).digest()


def _mac(key: bytes, data: bytes) -> bytes:
    return hashlib.blake2s(data, key=key, digest_size=16).digest()


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.blake2s).digest()


def _derive(chain: bytes, material: bytes, count: int) -> list[bytes]:
    """KDF_n of the paper: HKDF with HMAC-BLAKE2s."""
    secret = _hmac(chain, material)
    outputs, last = [], b""
    for number in range(1, count + 1):
        last = _hmac(secret, last + bytes([number]))
        outputs.append(last)
    return outputs


def _nonce(counter: int) -> bytes:
    return bytes(4) + struct.pack("<Q", counter)


def _raw(key: X25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


class Peer:
    """A peer with a key of its own that talks to one other peer through a UDP socket."""

    def __init__(self) -> None:
        self._key = X25519PrivateKey.generate()
        self._sending = self._receiving = b""
        self._our_index = b""
        self._their_index = 0
        self._counter = 0

    @property
    def public_key(self) -> str:
        """The public key in base64, as configurations hold it."""
        return base64.b64encode(_raw(self._key.public_key())).decode()

    def shake_hands(self, channel: socket.socket, their_key: str) -> None:
        """Agree on session keys over a connected UDP socket; `NoAnswer` after half a minute of trying."""
        channel.settimeout(_ANSWER_DEADLINE_S)
        for _ in range(_HANDSHAKE_TRIES):
            if self._try_handshake(channel, base64.b64decode(their_key)):
                return
        raise NoAnswer(f"No handshake response in {_HANDSHAKE_TRIES} tries.")

    def _try_handshake(self, channel: socket.socket, their_key: bytes) -> bool:
        theirs = X25519PublicKey.from_public_bytes(their_key)
        ephemeral = X25519PrivateKey.generate()
        ephemeral_public = _raw(ephemeral.public_key())
        index = os.urandom(4)

        chain = _hash(_CONSTRUCTION)
        digest = _hash(_hash(chain + _IDENTIFIER) + their_key)
        (chain,) = _derive(chain, ephemeral_public, 1)
        digest = _hash(digest + ephemeral_public)
        chain, key = _derive(chain, ephemeral.exchange(theirs), 2)
        static = ChaCha20Poly1305(key).encrypt(_nonce(0), _raw(self._key.public_key()), digest)
        digest = _hash(digest + static)
        chain, key = _derive(chain, self._key.exchange(theirs), 2)
        now = time.time_ns()
        stamp = struct.pack(">QI", _TAI64_EPOCH + now // 10**9, now % 10**9)
        timestamp = ChaCha20Poly1305(key).encrypt(_nonce(0), stamp, digest)
        digest = _hash(digest + timestamp)
        message = struct.pack("<I", _INITIATION) + index + ephemeral_public + static + timestamp
        channel.send(message + _mac(_hash(b"mac1----" + their_key), message) + bytes(16))

        answer = self._receive(channel, _RESPONSE)
        if answer is None or len(answer) != 92 or answer[8:12] != index:
            return False
        remote = answer[12:44]
        remote_key = X25519PublicKey.from_public_bytes(remote)
        (chain,) = _derive(chain, remote, 1)
        digest = _hash(digest + remote)
        (chain,) = _derive(chain, ephemeral.exchange(remote_key), 1)
        (chain,) = _derive(chain, self._key.exchange(remote_key), 1)
        chain, tau, key = _derive(chain, bytes(32), 3)
        # Raises InvalidTag where the other side is not who it should be.
        ChaCha20Poly1305(key).decrypt(_nonce(0), answer[44:60], _hash(digest + tau))
        self._sending, self._receiving = _derive(chain, b"", 2)
        self._our_index = index
        self._their_index = struct.unpack("<I", answer[4:8])[0]
        self._counter = 0
        return True

    def seal(self, packet: bytes) -> bytes:
        """The datagram that takes one IP packet through the tunnel; without a packet, a keepalive."""
        padded = packet + bytes(-len(packet) % 16)
        sealed = ChaCha20Poly1305(self._sending).encrypt(_nonce(self._counter), padded, b"")
        head = struct.pack("<IIQ", _DATA, self._their_index, self._counter)
        self._counter += 1
        return head + sealed

    def unseal(self, message: bytes) -> bytes:
        """The IP packet in a datagram; empty for a keepalive and for all that is not of the session agreed on last."""
        if struct.unpack("<I", message[:4])[0] != _DATA or message[4:8] != self._our_index:
            return b""
        (counter,) = struct.unpack("<Q", message[8:16])
        return ChaCha20Poly1305(self._receiving).decrypt(_nonce(counter), message[16:], b"")

    def exchange(self, channel: socket.socket, packet: bytes) -> bytes:
        """Send one IP packet through the tunnel and return the next that comes back; `NoAnswer` at the deadline."""
        channel.send(self.seal(packet))
        while (answer := self._receive(channel, _DATA)) is not None:
            if plain := self.unseal(answer):
                return plain
        raise NoAnswer("No packet came back through the tunnel.")

    def ping(self, channel: socket.socket, source: str, destination: str) -> None:
        """Send an ICMP echo request through the tunnel; return when the reply is there, else `NoAnswer`."""
        request = echo_request(source, destination, number=os.getpid() & 0xFFFF)
        reply = self.exchange(channel, request)
        header = (reply[0] & 0x0F) * 4
        if reply[9] != socket.IPPROTO_ICMP or reply[header] != 0 or reply[header + 4 : header + 8] != request[24:28]:
            raise NoAnswer(f"Something else than an echo reply came back: {reply.hex()}.")

    @staticmethod
    def _receive(channel: socket.socket, kind: int) -> bytes | None:
        """The next message of a kind, or None at the deadline; others (a cookie, a rekeying) are passed over."""
        try:
            while True:
                message = channel.recv(2048)
                if struct.unpack("<I", message[:4])[0] == kind:
                    return message
        except TimeoutError:
            return None


def echo_request(source: str, destination: str, number: int) -> bytes:
    """An IPv4 packet with an ICMP echo request (RFC 792)."""
    icmp = struct.pack(">BBHHH", 8, 0, 0, number, 1) + b"alpha-ren"
    icmp = icmp[:2] + _checksum(icmp) + icmp[4:]
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(icmp), number, 0, 64, socket.IPPROTO_ICMP, 0)
    header += socket.inet_aton(source) + socket.inet_aton(destination)
    return header[:10] + _checksum(header) + header[12:] + icmp


def _checksum(data: bytes) -> bytes:
    """The Internet checksum (RFC 1071)."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack(">H", ~total & 0xFFFF)
