"""Options from flags, environment and file as an operator meets them: what wins, what is shown, what is refused; what
scripts and systemd are told; and that dashboard and alerts ask only for metrics that exist."""
from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from serving import REPOSITORY, Server

BINARY = Path(os.environ.get("HADAL_BUILD_DIR", REPOSITORY / "build/release")) / "bin/hadal"


def serve(*args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """`hadal serve` that ends by itself."""
    return subprocess.run([str(BINARY), "serve", *args], cwd=REPOSITORY, env={**os.environ, **(env or {})},
                          capture_output=True, text=True, timeout=60)


class Sources(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name) / "serve.yaml"
        self.addCleanup(self.folder.cleanup)

    def explain(self, *args: str, env: dict[str, str] | None = None) -> dict:
        done = serve("--explain-config", "--json", *args, env=env)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def test_flag_then_environment_then_file_then_default(self):
        self.file.write_text("port: 1\nmax_num_seqs: 2\nblock-size: 128\napi-key: [sesame]\n")
        explained = self.explain("--config", str(self.file), "--port", "3", env={"HADAL_MAX_NUM_SEQS": "5"})
        self.assertEqual(explained["port"], {"value": 3, "origin": "flag"})
        self.assertEqual(explained["max-num-seqs"], {"value": 5, "origin": "HADAL_MAX_NUM_SEQS"})
        self.assertEqual(explained["block-size"], {"value": 128, "origin": f"{self.file}:3"})
        self.assertEqual(explained["host"], {"value": "0.0.0.0", "origin": "default"})
        self.assertEqual(explained["api-key"], {"value": ["***"], "origin": f"{self.file}:4"})

    def test_the_table_shows_no_secret(self):
        done = serve("--explain-config", "--api-key", "sesame", env={"HADAL_CONFIG": ""})
        self.assertEqual(done.returncode, 0)
        self.assertNotIn("sesame", done.stdout + done.stderr)
        rows = [line.split() for line in done.stdout.splitlines()]
        self.assertIn(["api-key", '["***"]', "flag"], rows)
        self.assertIn(["port", "8000", "default"], rows)

    def test_every_option_of_the_help_is_explained(self):
        text = serve("--help").stdout
        flags = set(re.findall(r"^  (?:-\w,)?--([a-z][a-z0-9-]+)", text, re.M)) - {"help", "explain-config", "json"}
        self.assertGreater(len(flags), 60)
        explained = self.explain()
        self.assertEqual(flags - set(explained), set())

    def test_refusals_end_with_2_and_name_the_place(self):
        self.file.write_text("host: 127.0.0.1\nmax-num-seq: 1\n")
        config = ("--config", str(self.file))
        cases = [(serve(*config), f"{self.file}:2: max-num-seq is not an option (did you mean max-num-seqs?)"),
                 (serve(env={"HADAL_MAX_MODLE_LEN": "1"}), "did you mean HADAL_MAX_MODEL_LEN?"),
                 (serve("--port", "3", env={"HADAL_SEED": "x"}), "HADAL_SEED"),
                 (serve("--modle", "x"), "did you mean --model?"),
                 (serve("--middleware", "m", "--model", "models/nano"), "--middleware"),
                 (serve("--config", "/nowhere.yaml"), "/nowhere.yaml"),
                 (serve("--json", "--model", "models/nano"), "--json requires --explain-config"),
                 (serve(), "--model is missing")]
        for done, message in cases:
            self.assertEqual(done.returncode, 2, (message, done.stderr))
            self.assertIn(message, done.stderr)

    def test_the_files_of_deploy_are_accepted(self):
        manifest = (REPOSITORY / "deploy/kubernetes/hadal.yaml").read_text()
        in_config_map = re.search(r"  serve\.yaml: \|\n((?:    .*\n)+)", manifest).group(1)
        self.file.write_text(re.sub(r"^    ", "", in_config_map, flags=re.M))
        for path in (self.file, REPOSITORY / "deploy/serve.yaml"):
            explained = self.explain("--config", str(path))
            self.assertEqual(explained["model"]["value"], "/model")


class Running(unittest.TestCase):
    """One server, set up by environment and file alone, under a supervisor that listens as systemd does."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        folder = Path(cls.folder.name)
        (folder / "serve.yaml").write_text("served-model-name: [from-file]\noverride-generation-config: '{\"top_k\": 7}'\n")
        (folder / "keys").write_text("# operators\nsesame\n")
        cls.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        cls.notify.bind(str(folder / "notify"))
        cls.notify.settimeout(30)
        cls.server = Server(args=("--num_gpu_blocks_override=200", "--swap-space", "4"),
                            env={"HADAL_CONFIG": str(folder / "serve.yaml"), "HADAL_API_KEY_FILE": str(folder / "keys"),
                                 "HADAL_MAX_MODEL_LEN": "512", "VLLM_SERVER_DEV_MODE": "1",
                                 "VLLM_API_KEYS": "typing error", "NOTIFY_SOCKET": str(folder / "notify"),
                                 "WATCHDOG_USEC": "200000"})
        cls.server.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()
        cls.notify.close()
        cls.folder.cleanup()

    def call(self, method: str, path: str, body: object = None):
        return self.server.call(method, path, body, {"Authorization": "Bearer sesame"})

    def wait_for_line(self, text: str) -> str:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            for line in self.server.lines:
                if text in line:
                    return line
            time.sleep(0.05)
        self.fail(f"no line with {text!r} among\n" + "\n".join(self.server.lines))

    def test_every_source_has_its_effect(self):
        status, _, text = self.call("GET", "/v1/models")
        self.assertEqual(status, 200)
        card = json.loads(text)["data"][0]
        self.assertEqual((card["id"], card["max_model_len"]), ("from-file", 512))
        self.assertEqual(self.server.call("GET", "/v1/models")[0], 401)

    def test_the_running_server_explains_itself(self):
        status, _, text = self.call("GET", "/server_info")
        self.assertEqual(status, 200)
        self.assertNotIn("sesame", text)
        self.assertIn("HADAL_MAX_MODEL_LEN", text)

    def test_lines_that_scripts_wait_for(self):
        port = self.server.port
        for text in (f"Started server process [{self.server.process.pid}]", "Application startup complete.",
                     f"Uvicorn running on http://127.0.0.1:{port}", f"Starting vLLM API server on http://127.0.0.1:{port}",
                     '"max-model-len":512', "--swap-space is accepted and has no effect",
                     "VLLM_API_KEYS is not read (did you mean VLLM_API_KEY?)"):
            self.wait_for_line(text)
        self.assertIn("top_k 7", self.wait_for_line("sampling "))

    def test_dashboard_and_alerts_use_metrics_that_exist(self):
        self.assertEqual(self.call("POST", "/v1/completions", {"prompt": "The capital of France is", "max_tokens": 4})[0], 200)
        _, _, text = self.call("GET", "/metrics")
        served = set(re.findall(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{| )", text, re.M))
        dashboard = json.loads((REPOSITORY / "deploy/grafana/hadal.json").read_text())
        rules = (REPOSITORY / "deploy/prometheus/hadal.rules.yml").read_text()
        expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
        expressions += [variable["query"] for variable in dashboard["templating"]["list"]]
        expressions += re.findall(r"expr: (.*)", rules)
        used = set(re.findall(r"\b(?:vllm:|hadal_|http_|process_)[a-z0-9_]+", " ".join(expressions)))
        self.assertGreater(len(used), 15)
        self.assertEqual(used - served, set())

    def test_z_supervisor_is_told(self):
        told = ""
        while "WATCHDOG=1" not in told:
            told += self.notify.recv(4096).decode() + "\n"
        self.assertIn("READY=1", told)
        self.assertEqual(self.server.stop(), 0)
        while "STOPPING=1" not in told:
            told += self.notify.recv(4096).decode() + "\n"
        self.assertLess(told.index("READY=1"), told.index("WATCHDOG=1"))
        self.assertLess(told.index("WATCHDOG=1"), told.index("STOPPING=1"))


if __name__ == "__main__":
    unittest.main()
