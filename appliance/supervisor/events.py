"""Why the supervisor wakes: causes are gathered while it works, and taken all at once when it looks again."""

import asyncio

MOST_CAUSES = 8


class Wake:
    """An event with reasons."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._causes: dict[str, None] = {}

    def __call__(self, cause: str) -> None:
        """Wake whoever waits; `cause` is one sentence for the journal."""
        self._causes[cause] = None
        self._event.set()

    async def wait(self, deadline_s: float) -> str:
        """Return the causes since the last time in one line, or `timer` when none came within `deadline_s`."""
        try:
            async with asyncio.timeout(deadline_s):
                await self._event.wait()
        except TimeoutError:
            return "timer"
        return self.taken()

    def taken(self) -> str:
        """Return the causes so far and forget them."""
        causes, self._causes = list(self._causes), {}
        self._event.clear()
        more = len(causes) - MOST_CAUSES
        return "; ".join(causes[:MOST_CAUSES]) + (f"; and {more} more" if more > 0 else "")
