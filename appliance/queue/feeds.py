"""Where a client's subscriptions keep what has arrived until the application takes it."""

import asyncio
from collections import deque

from appliance.queue.delivery import Delivery, Event


class WorkFeed:
    """Deliveries in the order in which they came; bounded by the credit."""

    def __init__(self, pattern: str, credit: int) -> None:
        self.pattern = pattern
        self.credit = credit
        self._waiting: deque[Delivery] = deque()
        self._error: Exception | None = None
        self._news = asyncio.Event()

    def put(self, delivery: Delivery) -> None:
        """Add a delivery."""
        self._waiting.append(delivery)
        self._news.set()

    def fail(self, error: Exception) -> None:
        """Let the application hear, after what has arrived, that nothing more will come."""
        self._error = error
        self._news.set()

    async def get(self) -> Delivery:
        """Return the next delivery; raise what ended the subscription."""
        while not self._waiting:
            if self._error is not None:
                raise self._error
            self._news.clear()
            await self._news.wait()
        return self._waiting.popleft()

    def drain(self) -> list[Delivery]:
        """Return what nobody took and forget it."""
        left = list(self._waiting)
        self._waiting.clear()
        return left


class EventFeed:
    """The newest value of each topic that the application has not seen yet, in the order of their first arrival."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self._waiting: dict[str, Event] = {}
        self._error: Exception | None = None
        self._news = asyncio.Event()

    def put(self, event: Event) -> None:
        """Add an event, in place of an older one of its topic."""
        self._waiting[event.topic] = event
        self._news.set()

    def fail(self, error: Exception) -> None:
        """See WorkFeed."""
        self._error = error
        self._news.set()

    async def get(self) -> Event:
        """Return the next event; raise what ended the subscription."""
        while not self._waiting:
            if self._error is not None:
                raise self._error
            self._news.clear()
            await self._news.wait()
        return self._waiting.pop(next(iter(self._waiting)))
