"""Packages of PyPI and npm that a test needs and the system does not have, in folders of the build directory."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from serving import REPOSITORY

FOLDER = Path(os.environ.get("HADAL_BUILD_DIR", REPOSITORY / "build/release")) / "e2e"
SKIPPED = 77  # ctest's skip code here


class Unavailable(Exception):
    """Why the packages cannot be had on this machine."""


def run(what: str, command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=400)
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"{what}: {error}\n{getattr(error, 'stderr', '') or ''}") from error


def make_environment(name: str, *requirements: str) -> Path:
    """-> its bin folder. Made once per build directory and set of requirements."""
    folder, wanted = FOLDER / f"venv-{name}", "\n".join(requirements)
    marker = folder / "requirements.txt"  # written last
    if marker.exists() and marker.read_text() == wanted:
        return folder / "bin"
    run(" ".join(requirements), [sys.executable, "-m", "venv", "--clear", str(folder)])
    run(" ".join(requirements), [str(folder / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", *requirements])
    marker.write_text(wanted)
    return folder / "bin"


def install_npm_package(name: str, version: str) -> Path:
    """-> the folder that holds it in node_modules: scripts must lie there to import it. Installed once per build directory
    and version; a folder of its own, since npm removes what it was not asked for."""
    folder = FOLDER / f"npm-{name}"
    manifest = folder / "node_modules" / name / "package.json"
    if not manifest.exists() or json.loads(manifest.read_text())["version"] != version:
        folder.mkdir(parents=True, exist_ok=True)
        run(f"{name}@{version}", ["npm", "install", "--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--prefix",
                                  str(folder), f"{name}@{version}"])
    return folder
