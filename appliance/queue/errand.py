"""One long look at the store, in a thread of its own, while the broker goes on."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec

from appliance.errors import Unavailable
from appliance.queue.calls import Later
from appliance.queue.store import Still

Look = Callable[[Still], msgspec.Struct]


class ErrandRunning(Unavailable):
    """Only one backup or check at a time."""

    code = "errand-running"
    hint = "Try again when it is over."


class Running(msgspec.Struct, frozen=True):
    """What the thread looks at, what it will have found, and who waits for that."""

    still: Still
    found: Future[msgspec.Struct]
    answer: Later


class Errand:
    """All methods are for the broker's own thread."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "queue-errand")
        self._running: Running | None = None

    def start(self, still: Callable[[], Still], look: Look, answer: Later) -> None:
        """Take a still and look at it; with another look under way, say so instead."""
        if self._running is not None:
            answer.set_exception(ErrandRunning("A backup or a check of the store is under way."))
            return
        taken = still()
        self._running = Running(taken, self._thread.submit(look, taken), answer)

    def pass_on(self) -> None:
        """Give the answer to who waits for it, once there is one."""
        running = self._running
        if running is None or not running.found.done():
            return
        self._running = None
        running.still.close()
        error = running.found.exception()
        if error is None:
            running.answer.set_result(running.found.result())
        else:
            running.answer.set_exception(error)

    def close(self) -> None:
        """End it, done or not."""
        if self._running is not None:
            self._running.still.interrupt()
        self._thread.shutdown()
        self.pass_on()
