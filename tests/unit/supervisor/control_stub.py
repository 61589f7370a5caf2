"""A supervisor's control socket that answers what a test wants, over the real wire."""

from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Self

import zmq

Answer = Callable[[str, bytes], list[bytes] | None]


class ControlStub:
    """Answers at `endpoint` in a thread of its own until the context ends; `asked` are the calls that came."""

    def __init__(self, folder: Path, answer: Answer) -> None:
        self.endpoint = f"ipc://{folder}/supervisor.sock"
        self.asked: list[tuple[str, bytes]] = []
        self._answer = answer
        self._context = zmq.Context()
        self._stop = self._context.socket(zmq.PAIR)
        self._stop.bind("inproc://stop")
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.bind(self.endpoint)
        self._thread = Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.send(b"")
        self._thread.join(timeout=20)
        assert not self._thread.is_alive()
        self._context.destroy(linger=0)

    def _serve(self) -> None:
        stopped = self._context.socket(zmq.PAIR)
        stopped.connect("inproc://stop")
        poller = zmq.Poller()
        poller.register(stopped, zmq.POLLIN)
        poller.register(self._socket, zmq.POLLIN)
        while True:
            if stopped in dict(poller.poll()):
                return
            peer, call, body = self._socket.recv_multipart()
            self.asked.append((call.decode(), body))
            reply = self._answer(call.decode(), body)
            if reply is not None:
                self._socket.send_multipart([peer, *reply])
