"""The broker's process: `python3 -m appliance.queue.service`."""

import os
import sys
from pathlib import Path

from appliance import notify
from appliance.contracts.service import CURVE_CREDENTIAL, credential, load, server_keys
from appliance.errors import InvalidInput
from appliance.queue.address import Home
from appliance.queue.auth import KeyRing
from appliance.queue.broker import Broker
from appliance.queue.clock import SystemClock
from appliance.queue.engine import Engine
from appliance.queue.keys import Keys, public_of
from appliance.queue.logged_store import open_store
from appliance.queue.loop import serve
from appliance.queue.restore import take_up
from appliance.queue.settings import BrokerSettings


async def main() -> None:
    """Serve until cancelled; raise what ends the broker."""
    context = load()
    settings = context.parse_settings(BrokerSettings)
    directory = Path(settings.state_directory or os.environ.get("STATE_DIRECTORY", ""))
    if not directory.is_absolute():
        raise InvalidInput("The broker has no state directory.", hint="Its unit needs StateDirectory=.")
    ring = KeyRing(Path(settings.access_file))
    secret = credential(CURVE_CREDENTIAL)
    keys = Keys(public=public_of(secret), secret=secret)
    announced = server_keys()
    next_key = announced[1] if announced[0] == keys.public and len(announced) > 1 else ""
    store = open_store(take_up(directory), lay_out=True)
    try:
        home = Home(context.lan, context.cluster)
        engine = Engine(store, home, settings, clock=SystemClock(), ring=ring, disk=directory, next_key=next_key)
        broker = Broker(settings, keys, engine, ring)
        try:
            await serve(broker, f"Serving {', '.join(settings.bind)}")
        finally:
            broker.close()
            engine.close()
    finally:
        store.close()


if __name__ == "__main__":
    sys.exit(notify.run(main))
