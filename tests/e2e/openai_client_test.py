"""Runs openai_client.mjs, the official JavaScript client, against `make serve`."""
import os
import subprocess
import sys
import unittest
from pathlib import Path

from serving import Server

PACKAGE = "openai@6.20.0"  # runs on Node 18 and later
HERE = Path(__file__).resolve().parent
INSTALL_DIR = Path(os.environ.get("HADAL_BUILD_DIR", HERE.parents[1] / "build/release")) / "e2e"


def install_client() -> None:
    """Exits with ctest's skip code, saying why, where the client cannot be had."""
    if (INSTALL_DIR / "node_modules/openai/package.json").exists():
        return
    INSTALL_DIR.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(["npm", "install", "--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--prefix",
                        str(INSTALL_DIR), PACKAGE], check=True, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"SKIPPED e2e.openai_client: npm install {PACKAGE} failed: {error}\n{getattr(error, 'stderr', '')}")
        sys.exit(77)


class OpenAiClient(unittest.TestCase):
    def test_official_client(self):
        script = INSTALL_DIR / "openai_client.mjs"  # modules resolve from the script's own folder
        script.write_text((HERE / "openai_client.mjs").read_text())
        with Server(through_make=True) as server:
            done = subprocess.run(["node", str(script), f"{server.url}/v1"], capture_output=True, text=True, timeout=240)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("all checks passed", done.stdout)


if __name__ == "__main__":
    install_client()
    unittest.main()
