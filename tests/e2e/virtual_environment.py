"""Python packages that a test needs and the system does not have, in a virtual environment of the build directory."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from serving import REPOSITORY

FOLDER = Path(os.environ.get("HADAL_BUILD_DIR", REPOSITORY / "build/release")) / "e2e"
SKIPPED = 77  # ctest's skip code here


class Unavailable(Exception):
    """Why there is no such environment on this machine."""


def make_environment(name: str, *requirements: str) -> Path:
    """-> its bin folder. Made once per build directory and set of requirements."""
    folder, wanted = FOLDER / f"venv-{name}", "\n".join(requirements)
    marker = folder / "requirements.txt"  # written last
    if marker.exists() and marker.read_text() == wanted:
        return folder / "bin"
    try:
        for command in ([sys.executable, "-m", "venv", "--clear", str(folder)],
                        [str(folder / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", *requirements]):
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=400)
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"{' '.join(requirements)}: {error}\n{getattr(error, 'stderr', '') or ''}") from error
    marker.write_text(wanted)
    return folder / "bin"
