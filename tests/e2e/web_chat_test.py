"""The page at `/`: its headers, the switch that takes it away, and web_chat.mjs in headless Chromium."""
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

from serving import Server
from virtual_environment import SKIPPED, Unavailable, install_npm_package

DRIVER = ("playwright-core", "1.55.0")  # runs on Node 18 and later; brings no browser
HERE = Path(__file__).resolve().parent
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class WebChat(unittest.TestCase):
    def test_in_the_browser(self):
        shots = FOLDER / "web_chat"
        shots.mkdir(exist_ok=True)
        for name in ("web_chat.mjs", "web_chat_server.mjs"):
            (FOLDER / name).write_text((HERE / name).read_text())
        with Server() as server:
            done = subprocess.run(["node", str(FOLDER / "web_chat.mjs"), server.url, BROWSER, str(shots)],
                                  capture_output=True, text=True, timeout=540)
        print(done.stdout)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("all checks passed", done.stdout)

    def test_is_open_and_can_be_switched_off(self):
        with Server(args=("--api-key", "sesame")) as server:
            self.assertEqual(server.call("GET", "/v1/models")[0], 401)
            status, headers, text = server.call("GET", "/")
            self.assertEqual(status, 200)
            self.assertTrue(headers["Content-Type"].startswith("text/html"), headers)
            self.assertTrue(text.startswith("<!doctype html>"))
            self.assertEqual(server.call("HEAD", "/")[2], "")
        with Server(args=("--disable-web-chat",)) as server:
            self.assertEqual(server.call("GET", "/")[0], 404)


if __name__ == "__main__":
    try:
        if BROWSER is None:
            raise Unavailable("no chromium here; scripts/install_deps.sh browser installs it")
        FOLDER = install_npm_package(*DRIVER)
    except Unavailable as reason:
        print(f"SKIPPED e2e.web_chat: {reason}")
        sys.exit(SKIPPED)
    unittest.main()
