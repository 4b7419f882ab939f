"""hadal doctor on this machine: text and JSON say the same, the exit code follows, and faults that can be made here are
named."""
from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import tempfile
import unittest
from pathlib import Path

from serving import REPOSITORY

BINARY = Path(os.environ.get("HADAL_BUILD_DIR", REPOSITORY / "build/release")) / "bin/hadal"
WORTH_CHANGING = ("warning", "fault")


def doctor(*args: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([str(BINARY), "doctor", *args], cwd=REPOSITORY, capture_output=True, text=True, timeout=120,
                          **options)


def findings(*args: str, **options) -> dict[str, dict]:
    return {finding["check"]: finding for finding in json.loads(doctor("--json", *args, **options).stdout)["findings"]}


class Doctor(unittest.TestCase):
    def test_json_and_exit_code_agree(self):
        done = doctor("--json", "--port", "0")
        report = json.loads(done.stdout)
        statuses = [finding["status"] for finding in report["findings"]]
        self.assertEqual(done.returncode, 1 if set(statuses) & set(WORTH_CHANGING) else 0, done.stderr)
        self.assertGreater(len(statuses), 20)
        self.assertEqual(len({finding["check"] for finding in report["findings"]}), len(statuses))
        for finding in report["findings"]:
            self.assertTrue(finding["found"], finding)
            self.assertTrue(finding["fix"] or finding["status"] not in WORTH_CHANGING, finding)

    def test_text_has_a_line_per_finding(self):
        checks = set(findings("--port", "0"))
        lines = doctor("--port", "0").stdout.splitlines()
        named = {line.split()[1] for line in lines if line.split()[0] in ("ok", "note", "warning", "fault")}
        self.assertEqual(named, checks)

    def test_a_taken_port(self):
        with socket.socket() as taken:
            taken.bind(("0.0.0.0", 0))
            taken.listen()
            port = taken.getsockname()[1]
            self.assertEqual(findings("--port", str(port))["port"]["status"], "fault")
            self.assertEqual(doctor("--port", str(port)).returncode, 1)
        self.assertEqual(findings("--port", "0")["port"]["status"], "ok")

    def test_few_files(self):
        limit = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        few = findings("--port", "0", preexec_fn=limit)["open-files"]
        self.assertEqual(few["status"], "warning")
        self.assertIn("256", few["found"])

    def test_the_model_against_memory_and_disk(self):
        found = findings("--port", "0", "--model", "models/nano")
        self.assertEqual(found["model-memory"]["status"], "ok")
        self.assertIn("model-disk", found)
        with tempfile.TemporaryDirectory() as folder:
            with open(Path(folder) / "model.safetensors", "wb") as huge:
                huge.truncate(1 << 43)  # 8.8 TB without a block on disk
            self.assertEqual(findings("--port", "0", "--model", folder)["model-memory"]["status"], "fault")
            Path(folder, "model.safetensors").unlink()
            self.assertEqual(findings("--port", "0", "--model", folder)["model"]["status"], "fault")

    def test_wrong_flags(self):
        done = doctor("--modle", "x")
        self.assertEqual(done.returncode, 2)
        self.assertIn("did you mean --model?", done.stderr)


if __name__ == "__main__":
    unittest.main()
