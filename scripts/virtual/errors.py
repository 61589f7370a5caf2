"""What can go wrong when the firmware is started as a virtual machine."""

from appliance.errors import ApplianceError


class ImageMissing(ApplianceError):
    """There is no finished image to boot."""

    code = "image-missing"
    hint = "Build it with `make image`."


class MachineBusy(ApplianceError):
    """Another process runs the machine that lives in this directory."""

    code = "machine-busy"
    hint = "End the other run first."


class MachineFailed(ApplianceError):
    """The virtual machine did not start, or ended by itself."""

    code = "machine-failed"


class PortTaken(MachineFailed):
    """A port that was free when it was chosen was taken when QEMU wanted it."""

    code = "port-taken"
    hint = "Start it again."


class NotReady(ApplianceError):
    """The appliance did not report ready within the deadline."""

    code = "not-ready"


class NoFreePort(ApplianceError):
    """Every port that was tried on this computer is taken."""

    code = "no-free-port"
    hint = "End a program that listens on one of them."


class ToolFailed(ApplianceError):
    """A program that prepares the machine's files failed."""

    code = "tool-failed"
