"""A client's session, at moments that no broker can be made to hit."""

import asyncio
import time

from tests.unit.queue.running import Broker

SOON_S = 15.0


def test_a_session_that_is_lost_just_as_a_heartbeat_is_due_is_opened_again(hasty: Broker) -> None:
    async def main() -> None:
        async with hasty.client() as q:
            await q.publish("link", b"", deadline_s=SOON_S)
            assert q._link.welcome is not None
            every = q._link.welcome.heartbeat_s
            asyncio.get_running_loop().call_later(1.1 * every, q._link._forget_session)
            time.sleep(2 * every)  # noqa: ASYNC251  # both are due now, the heartbeat first
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not q.connected
            await q.publish("link", b"", deadline_s=SOON_S)

    asyncio.run(main())
