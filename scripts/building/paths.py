"""Where a build reads and writes. Everything that is downloaded or made is under `build/`."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD = REPOSITORY / "build"

VENV = BUILD / "venv"
LOGS = BUILD / "log"
KEYS = BUILD / "keys"
PIP_CACHE = BUILD / "cache/pip"
APT = BUILD / "cache/apt"
WHEELS = BUILD / "cache/wheels"

MKOSI = BUILD / "mkosi"
MKOSI_TOOL = MKOSI / "tool"
SANDBOX = MKOSI / "sandbox"

TREES = BUILD / "tree"
IMAGES = BUILD / "image"
