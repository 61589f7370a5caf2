"""The systemd units of an instance (systemd.exec(5), systemd.service(5), systemd.resource-control(5))."""

from appliance.component import PYTHON, RUN, STATE, Credential, Instance, Resources, UnitSpec
from appliance.contracts.service import CURVE_CREDENTIAL, SERVER_KEYS_CREDENTIAL, SERVICE_FILE
from appliance.hwprofile import Budget

MARK = "# Written by the ALPHA-REN supervisor."
"""First line of every unit it wrote: what has it may be removed again."""

_SANDBOX = (
    "NoNewPrivileges=yes",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectControlGroups=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "ProtectProc=invisible",
    "LockPersonality=yes",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "SystemCallArchitectures=native",
    "SystemCallErrorNumber=EPERM",
)


SERVICE_DOCUMENT = "service.json"


def unit_name(instance: str, unit: str = "") -> str:
    """Return the name of an instance's main unit, or of its further unit `unit`."""
    return f"alpha-ren-{instance}-{unit}.service" if unit else f"alpha-ren-{instance}.service"


def slice_name(instance: str) -> str:
    """Return the name of the slice that holds all units of an instance."""
    return f"alpha-ren-{instance}.slice"


def run_directory(instance: str) -> str:
    """Return where an instance's rendered files are."""
    return f"{RUN}/{instance}"


def secret_path(name: str) -> str:
    """Return where the CURVE secret of an instance (or of the supervisor) is kept."""
    return f"{STATE}/keys/{name}.secret"


def memory_mb(resources: Resources, budget: Budget | None) -> int:
    """Return how much memory an instance has on hardware with this budget."""
    return budget.arsrv_memory_mb if budget is not None and resources.work == "compute" else resources.memory_mb


def cpus(resources: Resources, budget: Budget | None) -> str:
    """Return the processors of an instance on hardware with this budget, empty for all of them."""
    if budget is None:
        return ""
    return budget.arsrv_cpus if resources.work == "compute" else budget.network_cpus


def slice_text(
    component: str, instance: str, resources: Resources, budget: Budget | None, emulator_mb: int = 0
) -> str:
    """Return the slice: what all units of the instance may use together, `emulator_mb` on top of its own memory."""
    allowed = cpus(resources, budget)
    limits = [
        f"MemoryMax={memory_mb(resources, budget) + emulator_mb}M",
        "MemorySwapMax=0",
        f"TasksMax={resources.tasks}",
        f"CPUWeight={resources.cpu_weight}",
    ]
    return _written(
        ("Unit", [f"Description=ALPHA-REN {instance} ({component}), all of it"]),
        ("Slice", [*limits, *([f"AllowedCPUs={allowed}"] if allowed else [])]),
    )


def service_text(component: str, instance: Instance, unit: UnitSpec) -> str:
    """Return the service unit of one process. `%` and `$` in its command lines mean what they mean to systemd."""
    lines = [
        *_process(instance, unit),
        f"Slice={slice_name(instance.name)}",
        f"NetworkNamespacePath=/run/netns/{instance.name}",
        f"BindReadOnlyPaths={run_directory(instance.name)}/resolv.conf:/etc/resolv.conf",
        _environment(f"{run_directory(instance.name)}/service.json"),
    ]
    lines += [f"LoadCredential={each.name}:{each.path}" for each in credentials(instance.name, unit)]
    lines += [f"OpenFile={each.path}:{each.name}{':read-only' if each.read_only else ''}" for each in unit.opens]
    if unit.state_directory:
        lines += [f"StateDirectory=alpha-ren-{instance.name}", "StateDirectoryMode=0700"]
    lines += _writable(instance.name, unit.writable)
    lines += _privileges(unit)
    return _written(("Unit", _head(component, instance, unit)), ("Service", lines))


def guest_text(component: str, instance: Instance, unit: UnitSpec) -> str:
    """Return the service unit of the same process inside a virtual machine of its own.

    The machine is what its slice and namespace are elsewhere, and has all its files as credentials. What it comes after
    in a guest is said there, by the image.
    """
    names = (SERVICE_DOCUMENT, *(each.name for each in credentials(instance.name, unit)))
    lines = [
        *_process(instance, unit),
        _environment(f"%d/{SERVICE_DOCUMENT}"),
        *(f"LoadCredential={name}" for name in names),
        *_privileges(unit),
    ]
    return _written(("Unit", _head(component, instance, unit)), ("Service", lines))


def _head(component: str, instance: Instance, unit: UnitSpec) -> list[str]:
    return [f"Description=ALPHA-REN {instance.name} ({component}) {unit.name}".rstrip(), "StartLimitIntervalSec=0"]


def _process(instance: Instance, unit: UnitSpec) -> list[str]:
    """Return what a process is wherever it runs: its commands, its life, its name in the journal, its open files."""
    name = unit_name(instance.name, unit.name)
    lines = [f"Type={unit.kind}"]
    lines += [f"ExecStartPre={_command(command)}" for command in unit.before]
    lines.append(f"ExecStart={_command(unit.exec)}")
    if unit.reload:
        lines.append(f"ExecReload={_command(unit.reload)}")
    lines += _life(unit)
    lines += [
        f"LimitNOFILE={instance.resources.open_files}",
        f"SyslogIdentifier={name.removesuffix('.service')}",
    ]
    return [*lines, *(f"Environment={_quoted(setting)}" for setting in unit.environment)]


def _environment(document: str) -> str:
    return f"Environment={SERVICE_FILE}={document} LANG=C.UTF-8 PYTHONUNBUFFERED=1"


def credentials(instance: str, unit: UnitSpec) -> tuple[Credential, ...]:
    """Return the unit's credentials: its own, and for our own processes the instance's CURVE secret and the broker's
    public keys.
    """
    if unit.exec[0] != PYTHON:
        return unit.credentials
    own = {each.name for each in unit.credentials}
    ours = (
        Credential(name=CURVE_CREDENTIAL, path=secret_path(instance)),
        Credential(name=SERVER_KEYS_CREDENTIAL, path=f"{STATE}/keys/{SERVER_KEYS_CREDENTIAL}"),
    )
    return (*(each for each in ours if each.name not in own), *unit.credentials)


def _life(unit: UnitSpec) -> list[str]:
    # A slow machine under load (emulated, nested) takes minutes; a start that is cut short begins at nothing again.
    lines = [f"TimeoutStartSec={unit.start_s}", f"TimeoutStopSec={unit.stop_s}"]
    if unit.leads:
        lines.append("KillMode=mixed")
    if unit.kind == "oneshot":
        return [*lines, "RemainAfterExit=yes", "Restart=on-failure", "RestartSec=1s"]
    if unit.watchdog_s:
        lines.append(f"WatchdogSec={unit.watchdog_s}")
    # From a tenth of a second to five: a crash costs little, a crash loop does not eat the machine.
    return [*lines, "Restart=always", "RestartSec=100ms", "RestartSteps=6", "RestartMaxDelaySec=5s"]


def _writable(instance: str, paths: tuple[str, ...]) -> list[str]:
    """A directory in /run is made for the unit's user and goes with the unit; its own and others are there."""
    own = run_directory(instance)
    return [
        f"RuntimeDirectory={path.removeprefix('/run/')}"
        if path.startswith("/run/") and path != own
        else f"ReadWritePaths={path}"
        for path in paths
    ]


def _privileges(unit: UnitSpec) -> list[str]:
    # A unit is root's when it says nothing. With `User=root`, a bounding set and a system call filter, systemd 257
    # drops CAP_SETUID from what the process may do, although the set names it.
    who = {"": ["DynamicUser=yes"], "root": []}
    lines = who.get(unit.user, [f"User={unit.user}"])
    if unit.groups:
        lines.append(f"SupplementaryGroups={' '.join(unit.groups)}")
    capabilities = " ".join(unit.capabilities)
    if capabilities or unit.sandbox:
        lines.append(f"CapabilityBoundingSet={capabilities}")
        if unit.user != "root":
            lines.append(f"AmbientCapabilities={capabilities}")
    if unit.private_users:
        lines.append("PrivateUsers=yes")
    if unit.devices:
        # What systemd opens for the process is opened under the same rules.
        opened = [each for each in unit.opens if each.path.startswith("/dev/")]
        lines += ["DevicePolicy=closed", *(f"DeviceAllow={device} rw" for device in unit.devices)]
        lines += [f"DeviceAllow={each.path} {'r' if each.read_only else 'rw'}" for each in opened]
    if not unit.sandbox:
        return lines
    families = "AF_UNIX AF_INET AF_INET6 AF_NETLINK" + (" AF_PACKET" if "CAP_NET_RAW" in unit.capabilities else "")
    calls = "@system-service" + (" chroot" if "CAP_SYS_CHROOT" in unit.capabilities else "")
    lines += [*_SANDBOX, f"SystemCallFilter={calls}", f"RestrictAddressFamilies={families}"]
    return lines if unit.devices else [*lines, "PrivateDevices=yes"]


def _command(words: tuple[str, ...]) -> str:
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    if word and not set(word) & set(" \t\"'\\;"):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _written(*sections: tuple[str, list[str]]) -> str:
    blocks = ["\n".join((f"[{name}]", *lines)) for name, lines in sections]
    return "\n\n".join([MARK, *blocks]) + "\n"
