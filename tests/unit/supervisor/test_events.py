"""What wakes the supervisor."""

import asyncio

from appliance.supervisor.events import MOST_CAUSES, Wake


def test_causes_are_gathered_while_nobody_waits_and_taken_once() -> None:
    async def work() -> None:
        wake = Wake()
        wake("a link went")
        wake("a link went")
        wake("a rule changed")
        assert await wake.wait(5) == "a link went; a rule changed"
        assert await wake.wait(0.001) == "timer"

    asyncio.run(work())


def test_a_storm_of_causes_is_one_short_line() -> None:
    async def work() -> None:
        wake = Wake()
        for number in range(1000):
            wake(f"event {number}")
        assert (await wake.wait(5)).endswith(f"and {1000 - MOST_CAUSES} more")

    asyncio.run(work())
