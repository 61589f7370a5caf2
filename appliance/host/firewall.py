"""nftables through libnftables(3): the code behind nft(8), without a process for every namespace.

A ruleset is replaced in one transaction. What is in force is compared in the kernel's own words: the wanted text is
loaded into a scratch namespace (which is also its check) and read back.
"""

import ctypes
from collections import OrderedDict

from appliance.errors import ApplianceError
from appliance.host.netns import Namespaces
from appliance.topology import Ruleset

STATELESS = 1 << 2
"""NFT_CTX_OUTPUT_STATELESS: no counters in listings."""

MOST_REMEMBERED = 512


class BadRuleset(ApplianceError):
    """nftables refuses a ruleset; the one before it stays in force."""

    code = "bad-ruleset"
    hint = "This is a fault of the firmware: the ruleset that was in force stays in force."


class Firewall:
    """The rulesets of the namespaces. Every method runs in the helper thread of `namespaces`."""

    def __init__(self, namespaces: Namespaces) -> None:
        self._namespaces = namespaces
        self._library = _library()
        self._canonical: OrderedDict[str, str] = OrderedDict()

    def listed(self, namespace: str) -> str:
        """Return the ruleset in force in a namespace, in the kernel's own words."""
        with self._namespaces.inside(namespace):
            return self._run("list ruleset")

    def canonical(self, text: str) -> str:
        """Return the ruleset in the kernel's own words; raise BadRuleset where it is not valid."""
        if text not in self._canonical:
            with self._namespaces.scratch():
                self._run(text)
                self._canonical[text] = self._run("list ruleset")
            while len(self._canonical) > MOST_REMEMBERED:
                self._canonical.popitem(last=False)
        return self._canonical[text]

    def apply(self, ruleset: Ruleset) -> None:
        """Replace the whole ruleset of a namespace at once; raise BadRuleset, then nothing was changed."""
        self.canonical(ruleset.text)
        with self._namespaces.inside(ruleset.namespace):
            self._run(f"flush ruleset\n{ruleset.text}")

    def _run(self, commands: str) -> str:
        # A context opens its netlink socket when it is made, so it belongs to the namespace the thread is in.
        context = self._library.nft_ctx_new(0)
        try:
            self._library.nft_ctx_buffer_output(context)
            self._library.nft_ctx_buffer_error(context)
            self._library.nft_ctx_output_set_flags(context, STATELESS)
            failed = self._library.nft_run_cmd_from_buffer(context, commands.encode())
            if failed:
                reason = self._library.nft_ctx_get_error_buffer(context).decode().strip()
                raise BadRuleset(f"nftables refuses the ruleset: {reason or 'no reason given'}.")
            output: bytes = self._library.nft_ctx_get_output_buffer(context)
            return output.decode()
        finally:
            self._library.nft_ctx_free(context)


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libnftables.so.1")
    except OSError as error:
        raise BadRuleset(
            f"libnftables cannot be used: {error}.", hint="Install Debian's package libnftables1."
        ) from error
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
        getattr(library, name).restype = ctypes.c_int
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
        getattr(library, name).restype = ctypes.c_char_p
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    library.nft_ctx_output_set_flags.restype = None
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.nft_run_cmd_from_buffer.restype = ctypes.c_int
    library.nft_ctx_free.argtypes = [ctypes.c_void_p]
    library.nft_ctx_free.restype = None
    return library
