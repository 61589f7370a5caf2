"""Without space, network or rights a build ends with one clear sentence, a code and a hint."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.building import command, disk, inputs, keys, paths, space
from scripts.building.failure import Failure, exit_status

# In namespaces of its own, so that it works for root and for others, and leaves nothing behind.
ALONE = ["unshare", "--user", "--map-root-user", "--mount"]


def run_code(code: str, *arguments: str, prefix: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs Python code with the build's modules at hand."""
    return subprocess.run(
        [*(prefix or []), sys.executable, "-c", code, *arguments],
        cwd=paths.REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(autouse=True)
def logs_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "LOGS", tmp_path / "log")


FULL_DISK = """
import subprocess, sys
from pathlib import Path
from scripts.building import command, paths, publish
from scripts.building.failure import exit_status
folder = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", folder], check=True)
paths.LOGS = Path(sys.argv[2])
output = folder / "disk.raw"
def build():
    command.run("Building", ["dd", "if=/dev/zero", f"of={folder}/made", "bs=1M", "count=8"], log="dd")
    publish.publish(folder / "made", output, "digest")
status = exit_status("build", build)
assert not publish.up_to_date(output, "digest")
assert not output.exists()
sys.exit(status)
"""


def test_a_disk_that_fills_up_ends_the_build_with_one_sentence_and_no_output(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    ended = run_code(FULL_DISK, str(full), str(tmp_path / "log"), prefix=ALONE)
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.count("\n") == 1
    assert "there is no space left. [no-space]" in ended.stderr


SMALL_DISK = """
import subprocess, sys
from pathlib import Path
from scripts.building import space
from scripts.building.failure import exit_status
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8M", "tmpfs", sys.argv[1]], check=True)
space.require(Path(sys.argv[1]), 7, "A small step")
sys.exit(exit_status("build", lambda: space.require(Path(sys.argv[1]) / "not/there/yet", 100, "Building the tree")))
"""


def test_too_little_space_is_said_before_anything_is_begun(tmp_path: Path) -> None:
    ended = run_code(SMALL_DISK, str(tmp_path), prefix=ALONE)
    assert ended.returncode == 1, ended.stderr
    assert "Building the tree needs 100 MiB" in ended.stderr
    assert "8 MiB are free. [no-space]" in ended.stderr


def test_a_clone_without_network_is_told_so_in_one_sentence(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    for file in inputs.files(["scripts/bootstrap", "scripts/building", "requirements"]):
        target = clone / file.relative_to(paths.REPOSITORY)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)
    ended = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "scripts/bootstrap", "image"],
        cwd=clone,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.count("\n") == 1
    assert "could not be reached. [no-network]" in ended.stderr
    assert not (clone / "build/venv/stamp").exists()


def test_a_failed_step_says_its_last_line_and_where_the_rest_is(tmp_path: Path) -> None:
    with pytest.raises(Failure) as failure:
        command.run("Cooking", ["sh", "-c", "echo first; echo burnt >&2; exit 3"], log="cook")
    assert str(failure.value) == f"Cooking failed: burnt [step-failed] Its whole output is in {tmp_path}/log/cook.log."


def test_a_step_that_hangs_is_ended() -> None:
    with pytest.raises(Failure) as failure:
        command.run("Waiting", ["sleep", "600"], log="wait", limit_s=0.2)
    assert failure.value.code == "step-too-long"


def test_without_root_and_sudo_the_missing_packages_are_named() -> None:
    code = """
import os, shutil, sys
from scripts.building import hostpackages
from scripts.building.failure import exit_status
os.geteuid = lambda: 1000
shutil.which = lambda name: None
hostpackages.installed = lambda name: name != "ovmf"
sys.exit(exit_status("bootstrap", lambda: hostpackages.install("run")))
"""
    ended = run_code(code)
    assert ended.returncode == 1
    assert ended.stderr.startswith("bootstrap: Packages are missing on this host: ovmf. [root-needed]")


def test_an_invalid_hardware_profile_builds_nothing(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, paths.REPOSITORY / "scripts/build", "disk", "toaster"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "There is no hardware profile toaster. [invalid-hwprofile]" in ended.stderr
    assert not disk.folder("toaster").exists()


def test_flashing_says_that_it_is_not_there_yet() -> None:
    ended = subprocess.run(
        [paths.REPOSITORY / "scripts/flash", "qemu", "/dev/null"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 1
    assert "[flash-not-yet]" in ended.stderr
    assert "make image" in ended.stderr


def test_a_folder_of_keys_that_lacks_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "verity.key").touch()
    (tmp_path / "verity.crt").touch()
    monkeypatch.setenv("ALPHA_REN_KEYS", str(tmp_path))
    with pytest.raises(Failure) as failure:
        keys.folder()
    assert failure.value.code == "keys-missing"
    assert "secure-boot.key, secure-boot.crt" in failure.value.sentence


def test_development_keys_are_made_once_and_kept_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALPHA_REN_KEYS", raising=False)
    monkeypatch.setattr(paths, "KEYS", tmp_path / "keys")
    keys.folder()
    first = (tmp_path / "keys/verity.crt").read_text()
    keys.folder()
    assert (tmp_path / "keys/verity.crt").read_text() == first
    assert (tmp_path / "keys/verity.key").stat().st_mode & 0o077 == 0


def test_an_interrupted_build_says_so() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert exit_status("build", interrupted) == 130


def test_enough_space_is_no_failure(tmp_path: Path) -> None:
    space.require(tmp_path, 1, "A small step")

