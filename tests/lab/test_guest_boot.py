"""The firmware boots as a virtual machine inside a box: QEMU from the firmware, no KVM, started here by hand.

The host side of it is not in this test; what the guest is told, and what it says, is written out.
"""

import base64
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.labs import guests
from scripts.labs.place import Machine
from scripts.labs.session import Lab
from tests.lab import plans

STARTED = "39f53479d3a045ac8e11786248231fbf"
"""MESSAGE_ID of "a unit was started" (systemd: sd-messages.h)."""
SERVER = "alpha-ren-guest-server.service"
KERNEL_WORDS = (
    "console=ttyS0", "quiet", "panic=-1", "cryptomgr.notests", "rcupdate.rcu_expedited=1", "lsm=capability",
    "initcall_blacklist=init_encrypted,crypto_kdf108_init,jent_mod_init", "tsc=reliable",
    "systemd.unit=alpha-ren-guest.target", "systemd.hostname=guest",
)  # fmt: skip
ANSWER = """
import os, signal
from appliance import errors
import zmq
print("secret:", open(os.environ["CREDENTIALS_DIRECTORY"] + "/curve-secret").read(), flush=True)
print("resolver:", open("/etc/resolv.conf").read(), flush=True)
print("copy:", os.path.exists("/usr/lib/alpha-ren/appliance/__pycache__/errors.cpython-313.pyc"), flush=True)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
os.system("systemd-notify --ready")
signal.sigwait([signal.SIGTERM])
print("drained", flush=True)
"""
UNIT = """
[Service]
Type=notify
NotifyAccess=all
ExecStart=/usr/bin/python3 -c "import base64; exec(base64.b64decode('{code}'))"
LoadCredential=curve-secret
SyslogIdentifier=server
TimeoutStartSec=300
DynamicUser=yes
CapabilityBoundingSet=
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
"""
POWERDOWN = """
import json, socket
link = socket.socket(socket.AF_UNIX)
link.connect("/tmp/qmp")
for command in ("qmp_capabilities", "system_powerdown"):
    link.sendall(json.dumps({"execute": command}).encode())
    link.recv(4096)
"""


@pytest.fixture(scope="module")
def box() -> Iterator[Machine]:
    with Lab(plans.one_box(guests=True)) as running:
        yield running.machine("box")


def time_words() -> list[str]:
    """The rate of the clock that the guest sees, since it may fail to measure it while this computer is busy."""
    megahertz = re.search(r"^cpu MHz\s*: ([0-9.]+)$", Path("/proc/cpuinfo").read_text(encoding="ascii"), re.MULTILINE)
    return [f"tsc_early_khz={round(float(megahertz[1]) * 1000)}"] if megahertz else []


def qemu(credentials: list[str]) -> list[str]:
    """The emulator as nobody, with the journal of the guest on its standard output."""
    folder = "/usr/lib/alpha-ren/guest"
    argv = [
        "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "qemu-system-x86_64",
        "-M", "microvm,acpi=on,auto-kernel-cmdline=off", "-accel", "tcg,thread=multi,tb-size=128",
        "-cpu", "qemu64,+rdrand", "-m", "256", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-serial", "file:/tmp/console", "-qmp", "unix:/tmp/qmp,server=on,wait=off",
        "-kernel", f"{folder}/vmlinux", "-initrd", f"{folder}/initrd",
        "-append", " ".join([*KERNEL_WORDS, *time_words()]),
        "-chardev", "stdio,id=journal,signal=off", "-device", "virtio-serial-device,max_ports=2",
        "-device", "virtserialport,nr=1,chardev=journal,name=journal",
    ]  # fmt: skip
    for number, disk in enumerate((guests.USR, guests.CODE)):
        argv += ["-drive", f"if=none,id=disk{number},file={disk},format=raw,readonly=on"]
        argv += ["-device", f"virtio-blk-device,drive=disk{number}"]
    for name in credentials:
        argv += ["-fw_cfg", f"name=opt/io.systemd.credentials/{name},file=/tmp/given/{name}"]
    return argv


def test_a_guest_starts_its_server_tells_of_it_and_lets_it_end_in_peace(box: Machine) -> None:
    code = base64.b64encode(ANSWER.encode()).decode()
    given = {
        "alpha-ren.unit": UNIT.replace("{code}", code),
        "alpha-ren.network": "address add 10.9.0.2/32 dev lo\n",
        "alpha-ren.resolv": "nameserver 10.9.0.1\n",
        "curve-secret": "a secret of forty characters",
    }
    box.run(["install", "-d", "-m", "755", "/tmp/given"])
    for name, text in given.items():
        box.run(["dd", f"of=/tmp/given/{name}", "status=none"], stdin=text)
    said: list[str] = []
    # Its standard input stays open: a port whose other end is closed keeps the guest's writer waiting.
    with box.popen(qemu(list(given)), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            entry = json.loads(line)
            if entry.get("SYSLOG_IDENTIFIER") == "server":
                said.append(str(entry["MESSAGE"]))
            if entry.get("MESSAGE_ID") == STARTED and entry.get("UNIT") == SERVER:
                box.run(["python3", "-c", POWERDOWN])
    assert process.returncode == 0, box.run(["cat", "/tmp/console"]).stdout
    assert "secret: a secret of forty characters" in said
    assert "resolver: nameserver 10.9.0.1" in said
    assert "copy: True" in said
    assert said[-1] == "drained"
    assert box.run(["cat", "/tmp/console"]).stdout.count("panic") == 0
