"""Keys that sign the boot chain: a release's are in the folder ALPHA_REN_KEYS, else development keys are made once."""

import os
import subprocess
from pathlib import Path

from scripts.building import paths
from scripts.building.failure import Failure

NAMES = ("secure-boot", "verity")


def folder() -> Path:
    """The folder with `<name>.key` and `<name>.crt` for each name."""
    given = os.environ.get("ALPHA_REN_KEYS")
    if given:
        wanted = [f"{name}{end}" for name in NAMES for end in (".key", ".crt")]
        missing = [file for file in wanted if not (Path(given) / file).is_file()]
        if missing:
            raise Failure(
                "keys-missing",
                f"{given} lacks {', '.join(missing)}.",
                "ALPHA_REN_KEYS names a folder with all signing keys.",
            )
        return Path(given)
    paths.KEYS.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in NAMES:
        if not (paths.KEYS / f"{name}.crt").is_file():
            _make(name)
    return paths.KEYS


def _make(name: str) -> None:
    key, certificate = paths.KEYS / f"{name}.key", paths.KEYS / f"{name}.crt"
    partial = certificate.with_suffix(".partial")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha256", "-days", "7300"),
            *("-subj", f"/CN=ALPHA-REN {name} (development)", "-keyout", key, "-out", partial),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    key.chmod(0o600)
    partial.rename(certificate)
