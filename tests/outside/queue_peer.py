"""A peer of the queue on another LAN: `queue_peer ENDPOINT SERVER_KEY PUBLIC_KEY ADDRESS [COUNT]`, run as a module.

The first line of its standard input is its secret key. It publishes COUNT messages or, without, until its standard
input ends, each again and again until it is acknowledged, and prints how many that were; `ready` after the first.
"""

import asyncio
import sys
import uuid

from appliance.queue.client import Connection, PublishUnknown, QueueClient
from appliance.queue.keys import Keys


async def main() -> None:
    endpoint, server_key, public_key, address, *count = sys.argv[1:]
    most = int(count[0]) if count else None
    keys = Keys(public=public_key, secret=sys.stdin.readline().strip())
    ended = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
    acknowledged = 0
    async with QueueClient(Connection(endpoint, server_key, keys, "lan", "main")) as queue:
        while acknowledged != most and (most is not None or not ended.done()):
            name = uuid.uuid4().hex
            while True:
                try:
                    await queue.publish(address, b"", id=name, deadline_s=5.0)
                    break
                except PublishUnknown:
                    continue
            acknowledged += 1
            if acknowledged == 1:
                print("ready", flush=True)
    print(acknowledged, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
