"""What a console is told. In a module of its own, since declarations import it, and no web server for it."""

import msgspec

from appliance.config import TcpPort


class ConsoleSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a console's `spec.py` hands to its process: the port it listens on."""

    port: TcpPort
