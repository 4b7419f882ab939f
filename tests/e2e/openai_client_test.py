"""Runs openai_client.mjs, the official JavaScript client, against `make serve`."""
import subprocess
import sys
import unittest
from pathlib import Path

from serving import Server
from virtual_environment import SKIPPED, Unavailable, install_npm_package

CLIENT = ("openai", "6.20.0")  # runs on Node 18 and later
HERE = Path(__file__).resolve().parent


class OpenAiClient(unittest.TestCase):
    def test_official_client(self):
        script = FOLDER / "openai_client.mjs"
        script.write_text((HERE / "openai_client.mjs").read_text())
        with Server(through_make=True) as server:
            done = subprocess.run(["node", str(script), f"{server.url}/v1"], capture_output=True, text=True, timeout=240)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("all checks passed", done.stdout)


if __name__ == "__main__":
    try:
        FOLDER = install_npm_package(*CLIENT)
    except Unavailable as reason:
        print(f"SKIPPED e2e.openai_client: no npm or not this package: {reason}")
        sys.exit(SKIPPED)
    unittest.main()
