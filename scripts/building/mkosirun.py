"""One mkosi configuration folder of `image/`, built into `build/mkosi/out`."""

from collections.abc import Mapping
from pathlib import Path

from scripts.building import aptsources, command, inputs, mkositool, paths, publish

OUT = paths.MKOSI / "out"


def build(
    name: str,
    doing: str,
    *arguments: str,
    tools: bool = True,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> None:
    """Runs mkosi on `image/<name>`, or on `folder`; what it makes is `out/<name>…`, whole or not at all."""
    aptsources.write(paths.SANDBOX)
    # mkosi knows a cached tree by the image's name alone, so each configuration has a cache of its own.
    packages, cache, work = paths.MKOSI / "packages", paths.MKOSI / "cache" / name, paths.MKOSI / "work"
    for place in (OUT, packages, cache, work):
        place.mkdir(parents=True, exist_ok=True)
    tree = [f"--tools-tree={tools_tree()}"] if tools else []
    command.run(
        doing,
        mkositool.invocation(
            [
                f"--directory={folder or paths.REPOSITORY / 'image' / name}",
                f"--sandbox-tree={paths.SANDBOX}",
                f"--package-cache-dir={packages}",
                f"--cache-directory={cache}",
                f"--workspace-directory={work}",
                f"--output-directory={OUT}",
                f"--source-date-epoch={inputs.epoch()}",
                # What configurations share: their scripts find it below $SRCDIR.
                f"--build-sources={paths.REPOSITORY / 'image/cutting'}:image/cutting",
                *tree,
                *arguments,
                "--force",
                "build",
            ]
        ),
        log=f"mkosi-{name}",
        environment=environment,
    )


def tools_tree() -> Path:
    """The build tools, made once."""
    folder = paths.MKOSI / "tools"
    digest = inputs.digest(["image/tools"])
    if not publish.up_to_date(folder, digest):
        build("tools", "Building the build tools", tools=False)
        publish.publish(OUT / "tools", folder, digest)
    return folder
