"""Programs written for other servers talk to ours: the official Python clients of OpenAI and Anthropic, and a LiteLLM proxy
in front. Their packages are put into virtual environments of the build directory; without PyPI the tests are skipped."""
from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from serving import Server
from virtual_environment import SKIPPED, Unavailable, make_environment

HERE = Path(__file__).resolve().parent
SDKS = ("openai==3.57.0", "anthropic==2.14.0")
LITELLM = ("litellm[proxy]==1.108.7",)
PROXY_KEY = "sk-4f1c9d27a86b4be0a6d1c0f2e7b39a55"  # the proxy does not start without one
QUESTION = [{"role": "user", "content": "List 3 countries and their capitals."}]


def environment(name: str, *requirements: str) -> Path:
    try:
        return make_environment(name, *requirements)
    except Unavailable as reason:
        raise unittest.SkipTest(f"no PyPI or not these packages: {reason}") from None


class Clients(unittest.TestCase):
    def run_client(self, python: Path, script: str, *arguments: str) -> None:
        done = subprocess.run([str(python), str(HERE / script), *arguments], capture_output=True, text=True, timeout=240)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("all checks passed", done.stdout)

    def test_openai(self):
        python = environment("sdks", *SDKS) / "python"
        with Server() as server:
            self.run_client(python, "openai_client.py", f"{server.url}/v1")

    def test_anthropic(self):
        python = environment("sdks", *SDKS) / "python"
        with Server(args=("--api-key", "right")) as server:
            self.run_client(python, "anthropic_client.py", server.url, "right")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class LiteLlm(unittest.TestCase):
    """A proxy as operators run it, which knows our server as an OpenAI-compatible one."""

    def call(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, json.dumps(body) if body else None,
                           {"Content-Type": "application/json", "Authorization": f"Bearer {PROXY_KEY}"})
        response = connection.getresponse()
        status, text = response.status, response.read().decode()
        connection.close()
        return status, text

    def wait_ready(self, proxy: subprocess.Popen, log: Path) -> None:
        deadline = time.monotonic() + 200
        while proxy.poll() is None and time.monotonic() < deadline:
            try:
                if self.call("GET", "/health/liveliness")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.3)
        self.fail("the proxy did not start:\n" + log.read_text()[-3000:])

    def test_through_the_proxy(self):
        programs = environment("litellm", *LITELLM)
        with tempfile.TemporaryDirectory() as folder, Server() as server:
            config, log = Path(folder) / "config.yaml", Path(folder) / "log"
            parameters = {"model": "openai/models/nano", "api_base": f"{server.url}/v1", "api_key": "unused"}
            config.write_text(json.dumps({"model_list": [{"model_name": "nano", "litellm_params": parameters}],
                                          "general_settings": {"master_key": PROXY_KEY}}))
            self.port = free_port()
            with log.open("w") as output:
                proxy = subprocess.Popen([str(programs / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port",
                                          str(self.port)], stdout=output, stderr=subprocess.STDOUT, cwd=folder,
                                         env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "*"})
            try:
                self.wait_ready(proxy, log)
                self.check_answers(server)
            finally:
                proxy.terminate()
                proxy.wait(timeout=30)

    def check_answers(self, server: Server) -> None:
        asked = {"messages": QUESTION, "temperature": 0, "max_tokens": 128}
        ours = server.post("/v1/chat/completions", asked)["choices"][0]["message"]
        status, text = self.call("POST", "/v1/chat/completions", {"model": "nano", **asked})
        self.assertEqual(status, 200, text)
        message = json.loads(text)["choices"][0]["message"]
        self.assertEqual(message["content"].strip(), ours["content"].strip())
        self.assertEqual(message["reasoning_content"], ours["reasoning_content"])
        status, text = self.call("POST", "/v1/chat/completions", {"model": "nano", **asked, "stream": True})
        self.assertEqual(status, 200, text)
        chunks = [json.loads(line[len("data: "):]) for line in text.splitlines()
                  if line.startswith("data: ") and line != "data: [DONE]"]
        streamed = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])
        self.assertEqual(streamed, ours["content"])
        status, text = self.call("POST", "/v1/chat/completions", {"model": "nano", "messages": QUESTION, "temperature": -1})
        self.assertEqual(status, 400, text)
        self.assertIn("temperature", text)


if __name__ == "__main__":
    program = unittest.main(exit=False)
    if not program.result.wasSuccessful():
        sys.exit(1)
    if program.result.skipped and len(program.result.skipped) == program.result.testsRun:
        print("SKIPPED e2e.clients: " + program.result.skipped[0][1])
        sys.exit(SKIPPED)
