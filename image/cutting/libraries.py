"""Which shared libraries programs of a root tree need."""

import subprocess
from collections.abc import Iterable
from pathlib import Path

FOLDER = "usr/lib/x86_64-linux-gnu"


def needed(root: Path, programs: Iterable[Path]) -> set[Path]:
    """Return the libraries of `programs`, and of these, as the loader of the tree at `root` finds them; links and
    what they point to, and the loader itself.
    """
    loader = (root / FOLDER / "ld-linux-x86-64.so.2").resolve()
    search = f"{root}/{FOLDER}:{root}/{FOLDER}/systemd"
    found = {root / "usr/lib64/ld-linux-x86-64.so.2", loader}
    for program in programs:
        with program.open("rb") as file:
            if file.read(4) != b"\x7fELF":
                continue
        command = [str(loader), "--library-path", search, "--list", str(program)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        for line in answer.stdout.splitlines():
            path = line.partition("=>")[2].partition("(")[0].strip()
            if path.startswith(str(root)):
                found |= {Path(path), Path(path).resolve()}
    return found
