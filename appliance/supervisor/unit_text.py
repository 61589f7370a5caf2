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


def slice_text(component: str, instance: str, resources: Resources, budget: Budget | None) -> str:
    """Return the slice: what all units of the instance may use together, on hardware with this budget."""
    memory_mb, cpus = resources.memory_mb, ""
    if budget is not None:
        computes = resources.work == "compute"
        cpus = budget.arsrv_cpus if computes else budget.network_cpus
        memory_mb = budget.arsrv_memory_mb if computes else memory_mb
    limits = [
        f"MemoryMax={memory_mb}M",
        "MemorySwapMax=0",
        f"TasksMax={resources.tasks}",
        f"CPUWeight={resources.cpu_weight}",
    ]
    return _written(
        ("Unit", [f"Description=ALPHA-REN {instance} ({component}), all of it"]),
        ("Slice", [*limits, *([f"AllowedCPUs={cpus}"] if cpus else [])]),
    )


def service_text(component: str, instance: Instance, unit: UnitSpec) -> str:
    """Return the service unit of one process. `%` and `$` in its command lines mean what they mean to systemd."""
    name = unit_name(instance.name, unit.name)
    lines = [f"Type={unit.kind}"]
    lines += [f"ExecStartPre={_command(command)}" for command in unit.before]
    lines.append(f"ExecStart={_command(unit.exec)}")
    if unit.reload:
        lines.append(f"ExecReload={_command(unit.reload)}")
    lines += _life(unit)
    lines += [
        f"Slice={slice_name(instance.name)}",
        f"LimitNOFILE={instance.resources.open_files}",
        f"SyslogIdentifier={name.removesuffix('.service')}",
        f"NetworkNamespacePath=/run/netns/{instance.name}",
        f"BindReadOnlyPaths={run_directory(instance.name)}/resolv.conf:/etc/resolv.conf",
        f"Environment={SERVICE_FILE}={run_directory(instance.name)}/service.json LANG=C.UTF-8 PYTHONUNBUFFERED=1",
    ]
    lines += [f"Environment={_quoted(setting)}" for setting in unit.environment]
    lines += [f"LoadCredential={each.name}:{each.path}" for each in credentials(instance.name, unit)]
    if unit.state_directory:
        lines += [f"StateDirectory=alpha-ren-{instance.name}", "StateDirectoryMode=0700"]
    lines += _writable(instance.name, unit.writable)
    lines += _privileges(unit)
    head = [f"Description=ALPHA-REN {instance.name} ({component}) {unit.name}".rstrip(), "StartLimitIntervalSec=0"]
    return _written(("Unit", head), ("Service", lines))


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
    lines = ["TimeoutStartSec=300", f"TimeoutStopSec={unit.stop_s}"]
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
    capabilities = " ".join(unit.capabilities)
    if capabilities or unit.sandbox:
        lines.append(f"CapabilityBoundingSet={capabilities}")
        if unit.user != "root":
            lines.append(f"AmbientCapabilities={capabilities}")
    if unit.private_users:
        lines.append("PrivateUsers=yes")
    if unit.devices:
        lines += ["DevicePolicy=closed", *(f"DeviceAllow={device} rw" for device in unit.devices)]
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
