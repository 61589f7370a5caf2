"""What the lab refuses, or cannot do, in the words of the appliance's errors."""

from appliance.errors import ApplianceError, InvalidInput, NotFound


class LabError(ApplianceError):
    """Base of what can go wrong in a lab."""

    code = "lab-failed"
    hint = "The lab's own logs are in /var/lib/alpha-ren-lab/NAME while it is up."


class InvalidTopology(InvalidInput):
    """The topology file does not validate; no lab was started."""

    code = "invalid-topology"
    hint = "Correct the named field; unknown fields are errors. tests/lab/README.md lists them all."


class LabExists(LabError):
    """A lab of this name is up already."""

    code = "lab-exists"
    hint = "Choose another name with `--name`, or stop it with `scripts/lab down NAME`."


class NoSuchLab(NotFound):
    """There is no lab, or no machine or host in it, of this name."""

    code = "lab-not-found"
    hint = "`scripts/lab ls` shows what is up."


class Missing(LabError):
    """The computer lacks something that the lab needs."""

    code = "lab-host-incomplete"
    hint = "Run `scripts/bootstrap`, which installs what is missing."


class NoTree(LabError):
    """The firmware's tree has not been built."""

    code = "lab-tree-missing"
    hint = "Build it with `make image`, or name another with `--tree`."


class CommandFailed(LabError):
    """A command inside a machine or host ended with a status other than 0."""

    code = "lab-command-failed"
    hint = "Its output is part of the message."


class MachineLost(LabError):
    """A machine stopped, or did not come up in time."""

    code = "lab-machine-lost"
    hint = "Its console and journal say why: `scripts/lab logs MACHINE`."
