"""A peer of the queue that has much to say: `queue_load ENDPOINT SERVER_KEY PUBLIC_KEY PATTERN COUNT`, run as a module.

The first line of its standard input is its secret key. It publishes the messages 0 to COUNT - 1, each of them again
until it is acknowledged: number n at the address `PATTERN % (n % 5)` with the key n % 7.
"""

import asyncio
import sys

from appliance.queue import wire
from appliance.queue.client import Connection, PublishUnknown, QueueClient
from appliance.queue.keys import Keys

AT_ONCE = 500
BODY = bytes(100)


async def main() -> None:
    endpoint, server_key, public_key, pattern, count = sys.argv[1:]
    keys = Keys(public=public_key, secret=sys.stdin.readline().strip())
    async with QueueClient(Connection(endpoint, server_key, keys, "lan", "main")) as queue:
        for first in range(0, int(count), AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, int(count)))
            left = [wire.Item(pattern % (n % 5), str(n), key=str(n % 7)) for n in numbers]
            while left:
                left = await _unstored(queue, left)


async def _unstored(queue: QueueClient, items: list[wire.Item]) -> list[wire.Item]:
    """Publish and return what has to be published again; what is refused ends the program."""
    try:
        results = await queue.publish_whole(items, [BODY] * len(items), deadline_s=10.0)
    except PublishUnknown:
        return items
    busy = {trouble.index for trouble in results.troubles if results.statuses[trouble.index] == wire.BUSY}
    refused = [trouble.fault for trouble in results.troubles if trouble.index not in busy]
    if refused:
        raise SystemExit(str(refused[0]))
    if busy:
        await asyncio.sleep(0.2)
    return [item for index, item in enumerate(items) if index in busy]


if __name__ == "__main__":
    asyncio.run(main())
