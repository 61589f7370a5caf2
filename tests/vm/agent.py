"""A root's hand inside the unmodified image: a unit that arrives as a systemd credential and obeys over a virtio port.

systemd-debug-generator(8) makes units of the credentials `systemd.extra-unit.*` and drop-ins of
`systemd.unit-dropin.*`; whoever owns the (virtual) machine can set them, so this takes nothing that a firmware's owner
does not have.
"""

import base64

import msgspec

PORT = "agent"
_UNIT = "alpha-ren-test-agent.service"

# Runs on the box with the box's own Python. One request and one answer a line, in JSON, one after the other.
PROGRAM = r"""
import glob, json, os, subprocess, sys
port = next(p for p in glob.glob("/sys/class/virtio-ports/*") if open(p + "/name").read().strip() == "agent")
line = os.open("/dev/" + os.path.basename(port), os.O_RDWR)
def say(answer):
    data = json.dumps(answer).encode() + b"\n"
    while data:
        data = data[os.write(line, data):]
say({"hello": open("/proc/sys/kernel/random/boot_id").read().strip()})
waiting = b""
while True:
    waiting += os.read(line, 65536)
    while b"\n" in waiting:
        request, waiting = waiting.split(b"\n", 1)
        request = json.loads(request)
        try:
            done = subprocess.run(request["argv"], input=request["stdin"].encode(), capture_output=True,
                                  timeout=request["deadline_s"])
            code, out, err = done.returncode, done.stdout, done.stderr
        except subprocess.TimeoutExpired as error:
            code, out, err = 124, error.stdout or b"", (error.stderr or b"") + b"\ndeadline passed"
        except OSError as error:
            code, out, err = 127, b"", str(error).encode()
        say({"number": request["number"], "code": code, "out": out.decode(errors="replace"),
             "err": err.decode(errors="replace")})
"""


class Request(msgspec.Struct, frozen=True):
    """A command for the box."""

    number: int
    argv: list[str]
    stdin: str
    deadline_s: float


class Completed(msgspec.Struct, frozen=True):
    """How a command on the box ended."""

    number: int
    code: int
    out: str
    err: str


class Hello(msgspec.Struct, frozen=True):
    """The agent's first line: the id of this boot."""

    hello: str


def credentials() -> dict[str, bytes]:
    """The credentials that bring the agent into the image."""
    program = base64.b64encode(PROGRAM.encode()).decode()
    unit = (
        "[Unit]\nDescription=Test agent\n"
        "[Service]\nType=exec\nRestart=always\nRestartSec=100ms\n"
        f"ExecStart=/usr/bin/python3 -c \"import base64; exec(base64.b64decode('{program}'))\"\n"
    )
    return {
        f"systemd.extra-unit.{_UNIT}": unit.encode(),
        "systemd.unit-dropin.multi-user.target~test-agent": f"[Unit]\nWants={_UNIT}\n".encode(),
    }
