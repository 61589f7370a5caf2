"""The broker's process: `python3 -m appliance.queue.service`."""

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from appliance import notify
from appliance.contracts.service import CURVE_CREDENTIAL, credential, load
from appliance.errors import InvalidInput
from appliance.queue.address import Home
from appliance.queue.auth import KeyRing
from appliance.queue.broker import Broker
from appliance.queue.clock import SystemClock
from appliance.queue.engine import Engine
from appliance.queue.errors import StoreFailed
from appliance.queue.keys import Keys
from appliance.queue.settings import BrokerSettings
from appliance.queue.sqlite_store import SqliteStore

log = logging.getLogger(__name__)

STUCK_S = 60.0
"""A turn that takes longer than this has met a disk that will not come back; the restart recovers."""


async def main() -> None:
    """Serve until cancelled; raise what ends the broker."""
    context = load()
    settings = context.parse_settings(BrokerSettings)
    directory = Path(settings.state_directory or os.environ.get("STATE_DIRECTORY", ""))
    if not directory.is_absolute():
        raise InvalidInput("The broker has no state directory.", hint="Its unit needs StateDirectory=.")
    ring = KeyRing(Path(settings.access_file))
    keys = Keys(public=context.queue_key, secret=credential(CURVE_CREDENTIAL))
    store = SqliteStore(directory / "queue.sqlite")
    try:
        engine = Engine(
            store, Home(context.lan, context.cluster), settings, clock=SystemClock(), ring=ring, disk=directory
        )
        broker = Broker(settings, keys, engine, ring)
        try:
            await _serve(broker, settings)
        finally:
            broker.close()
    finally:
        store.close()


async def _serve(broker: Broker, settings: BrokerSettings) -> None:
    """Run the broker's loop in a thread of its own, and wait for it whatever happens."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, broker.reload_keys)
    loop = asyncio.ensure_future(asyncio.to_thread(broker.run))
    watch = asyncio.create_task(_watch(broker))
    notify.ready(f"Serving {', '.join(settings.bind)}")
    try:
        await asyncio.wait([loop, watch], return_when=asyncio.FIRST_COMPLETED)
        if not loop.done():
            os._exit(1)  # its thread hangs in the disk and cannot be joined
    finally:
        watch.cancel()
        broker.stop()
        await loop


async def _watch(broker: Broker) -> None:
    """Return when the broker's loop has not gone round for STUCK_S."""
    while True:
        turns = broker.turns
        await asyncio.sleep(STUCK_S)
        if broker.turns == turns:
            log.critical("%s", StoreFailed(f"The broker's loop has been stuck for {STUCK_S:.0f} s."))
            return


if __name__ == "__main__":
    sys.exit(notify.run(main))
