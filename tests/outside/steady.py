"""Steady traffic: `python steady.py HOST PATH` posts to https://HOST/PATH until SIGTERM, and then says how it went.

A few connections are kept open for all of it and are never opened anew; one client connects for every message. On
SIGTERM one JSON line says what was answered with 202 (`taken`: number and when), and what else happened (`lost`).
"""

import http.client
import json
import signal
import ssl
import sys
import threading
import time
from itertools import count

KEPT = 8
EVERY_S = 0.05
DEADLINE_S = 20.0


class Traffic:
    """All clients together."""

    def __init__(self, host: str, path: str) -> None:
        self._host = host
        self._path = path
        self._context = ssl.create_default_context()
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self._numbers = count(1)
        self.over = threading.Event()
        self.taken: list[tuple[int, float]] = []
        self.lost: list[str] = []

    def keep(self) -> None:
        """Post over one connection that must last."""
        connection = self._connect()
        connection.auto_open = 0
        while not self.over.wait(EVERY_S):
            self._post(connection)

    def knock(self) -> None:
        """Connect for every message."""
        while not self.over.wait(EVERY_S):
            try:
                connection = self._connect()
            except OSError as error:
                self.lost.append(f"not connected: {error!r}")
                continue
            self._post(connection)
            connection.close()

    def _connect(self) -> http.client.HTTPSConnection:
        connection = http.client.HTTPSConnection(self._host, timeout=DEADLINE_S, context=self._context)
        connection.connect()
        return connection

    def _post(self, connection: http.client.HTTPSConnection) -> None:
        number = next(self._numbers)
        try:
            connection.request("POST", self._path, json.dumps({"n": number}), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.lost.append(f"{number}: {error!r}")
            return
        if answer.status == 202:
            self.taken.append((number, time.time()))
        else:
            self.lost.append(f"{number}: {answer.status}")


if __name__ == "__main__":
    traffic = Traffic(*sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: traffic.over.set())
    clients = [threading.Thread(target=work) for work in (*[traffic.keep] * KEPT, traffic.knock)]
    for client in clients:
        client.start()
    print("ready", flush=True)
    for client in clients:
        client.join()
    print(json.dumps({"taken": traffic.taken, "lost": traffic.lost}), flush=True)
