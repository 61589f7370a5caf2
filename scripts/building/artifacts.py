"""What is handed out for a hardware profile: the image for flashing, the same as a virtual disk, and checksums."""

import hashlib
import shutil
from pathlib import Path

from scripts.building import command, disk, inputs, mkosirun, paths, publish, space


def build(profile: str) -> Path:
    """Makes the artifacts when they are not up to date, and returns the folder they are in."""
    raw = disk.build(profile)
    folder = disk.folder(profile)
    name = f"alpha-ren_{inputs.version()}"
    sums = folder / "SHA256SUMS"
    wanted = disk.digest(profile)
    if publish.up_to_date(sums, wanted):
        return folder
    space.require(paths.BUILD, 1000, "Compressing the image")
    tools = mkosirun.tools_tree() / "usr/bin"
    outputs = {
        f"{name}.raw.zst": ["zstd", "--quiet", "--force", "-12", "--threads=0", str(raw), "-o"],
        f"{name}.qcow2": ["qemu-img", "convert", "-c", "-O", "qcow2", str(raw)],
    }
    for old in folder.glob("alpha-ren_*"):
        publish.remove(old)
    lines = []
    for output, argv in outputs.items():
        partial = folder / f".{output}.partial"
        command.run(f"Making {output}", [*_tool(tools, argv[0]), *argv[1:], str(partial)], log=f"artifact-{argv[0]}")
        publish.sync(partial)
        partial.rename(folder / output)
        lines.append(f"{_sha256(folder / output)}  {output}\n")
    partial_sums = folder / ".SHA256SUMS.partial"
    partial_sums.write_text("".join(lines))
    publish.publish(partial_sums, sums, wanted)
    return folder


def _tool(tools: Path, name: str) -> list[str]:
    """The tool on this host, else the one among the build tools, run with its own libraries."""
    if shutil.which(name):
        return [name]
    loader = tools.parent / "lib64/ld-linux-x86-64.so.2"
    libraries = tools.parent / "lib/x86_64-linux-gnu"
    return [str(loader), "--library-path", str(libraries), str(tools / name)]


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


