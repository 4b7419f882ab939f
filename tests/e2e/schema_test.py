"""Requests made up from /openapi.json by schemathesis: no 5xx, and every answer as the description says. Bounded, with a
fixed seed. Needs PyPI once per build directory; skipped without."""
from __future__ import annotations

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from serving import Server
from virtual_environment import SKIPPED, Unavailable, make_environment

SCHEMATHESIS = ("schemathesis==4.32.5",)
EXAMPLES = 20  # per operation, besides those at the limits of the schema
CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
          "negative_data_rejection")
LIMITS = ("--max-model-len", "256")  # answers without max_tokens end soon


class Schema(unittest.TestCase):
    def test_answers_fit_the_description(self):
        with tempfile.TemporaryDirectory() as folder, Server(args=LIMITS) as server:
            done = subprocess.run(
                [str(PROGRAMS / "schemathesis"), "run", f"{server.url}/openapi.json", "--url", server.url, "--checks", ",".join(CHECKS),
                 "--max-examples", str(EXAMPLES), "--seed", "1", "--workers", "1", "--phases", "examples,coverage,fuzzing",
                 "--generation-database", ":memory:", "--request-timeout", "60", "--suppress-health-check", "all"],
                capture_output=True, text=True, timeout=500, cwd=folder)
            print(done.stdout[-6000:])
            self.assertEqual(server.call("GET", "/health")[0], 200)
        self.assertEqual(done.returncode, 0, done.stderr[-3000:])


if __name__ == "__main__":
    try:
        PROGRAMS = make_environment("schemathesis", *SCHEMATHESIS)
    except Unavailable as reason:
        print(f"SKIPPED e2e.schema: no PyPI or not these packages: {reason}")
        sys.exit(SKIPPED)
    unittest.main()
