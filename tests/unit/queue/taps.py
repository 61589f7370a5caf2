"""A wire that listens: it hands on what a client and the broker say, keeps what the client said, and can repeat it."""

import socket
import threading
from types import TracebackType
from typing import Self


class Tap:
    """A TCP port before another; `said` is what clients sent, `repeat` sends every further piece of it twice."""

    def __init__(self, port: int) -> None:
        self.said = bytearray()
        self.repeat = threading.Event()
        self.cut = threading.Event()
        """Set once the side behind the tap has closed a connection."""
        self._port = port
        self._ear = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def endpoint(self) -> str:
        """Where a client connects."""
        return f"tcp://127.0.0.1:{self._ear.getsockname()[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in (self._ear, *self._open):
            _end(each)
        for thread in self._threads:
            thread.join()
        for each in (self._ear, *self._open):
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._ear.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._port))
            self._open += [client, server]
            for source, target, listens in ((client, server, True), (server, client, False)):
                thread = threading.Thread(target=self._hand_on, args=(source, target, listens))
                self._threads.append(thread)
                thread.start()

    def _hand_on(self, source: socket.socket, target: socket.socket, listens: bool) -> None:
        try:
            while piece := source.recv(2**16):
                if listens:
                    self.said += piece
                target.sendall(piece * 2 if listens and self.repeat.is_set() else piece)
        except OSError:
            pass  # either side has closed it, which ends both
        if not listens:
            self.cut.set()
        _end(target)


def _end(side: socket.socket) -> None:
    try:
        side.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it is closed already
