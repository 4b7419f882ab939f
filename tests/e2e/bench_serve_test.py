"""`hadal bench serve` against `hadal serve` on the small model: counts are exact, the table and the JSON are those that
vLLM's benchmark client writes. No speed is judged here."""
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
import unittest
import xml.dom.minidom
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from serving import REPOSITORY, Server

BINARY = Path(os.environ.get("HADAL_BUILD_DIR", REPOSITORY / "build/release")) / "bin/hadal"
NANO = REPOSITORY / "models/nano"
NUMBER = r"\d+\.\d\d {2,}"
TABLE = [r"={12} Serving Benchmark Result ={12}", r"Successful requests: {21}8 {9}", r"Benchmark duration \(s\): {18}" + NUMBER,
         r"Total input tokens: {22}128 {7}", r"Total generated tokens: {18}96 {8}",
         r"Request throughput \(req/s\): {14}" + NUMBER, r"Output token throughput \(tok/s\): {9}" + NUMBER,
         r"Total Token throughput \(tok/s\): {10}" + NUMBER]
for title, word in [("-{15}Time to First Token-{16}", "TTFT"), (r"-{5}Time per Output Token \(excl\. 1st token\)-{6}", "TPOT"),
                    ("-{15}Inter-token Latency-{16}", "ITL")]:
    TABLE.append(title)
    TABLE += [rf"{kind} {word} \(ms\): +{NUMBER}" for kind in ("Mean", "Median", "P99")]
TABLE.append("={50}")


class Recording(BaseHTTPRequestHandler):
    """Takes requests down and answers each with one chunk."""
    bodies: list = []

    def do_GET(self):
        self.answer("application/json", json.dumps({"data": [{"id": "m", "root": "/nowhere"}]}))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.bodies.append((self.path, self.headers.get("Authorization"), body))
        chunk = {"choices": [{"index": 0, "text": "x", "delta": {"content": "x"}}]}
        usage = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 1}}
        self.answer("text/event-stream", f"data: {json.dumps(chunk)}\n\ndata: {json.dumps(usage)}\n\ndata: [DONE]\n\n")

    def answer(self, kind, text):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


def bench(*arguments, returncode=0, env=None):
    done = subprocess.run([BINARY, "bench", "serve", *map(str, arguments)], capture_output=True, text=True, timeout=300,
                          env={**os.environ, **(env or {})}, cwd=REPOSITORY)
    assert done.returncode == returncode, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


class BenchServe(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server().__enter__()
        cls.addClassCleanup(cls.server.stop)

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)

    def measure(self, *more, returncode=0):
        return bench("--base-url", self.server.url, "--random-input-len", 16, "--random-output-len", 12,
                     "--num-prompts", 8, "--ignore_eos", "--result-dir", self.dir, *more, returncode=returncode)

    def test_guides_command_line_gives_the_guides_text(self):
        done = bench("--backend", "vllm", "--model", "models/nano", "--trust-remote-code", "--host", self.server.host,
                     "--port", self.server.port, "--dataset-name", "random", "--random-input-len", 16,
                     "--random-output-len", 12, "--random-range-ratio", 1, "--max_concurrency", 4, "--num-prompts", 8,
                     "--request-rate", "inf", "--seed", 0, "--ignore_eos", "--save-result", "--result-filename",
                     self.dir / "r.json", "--served-model-name", self.model())
        lines = done.stdout.splitlines()
        self.assertEqual(lines[:5], ["Starting initial single prompt test run...",
                                     "Initial test run completed. Starting main benchmark run...",
                                     "Traffic request rate: inf", "Burstiness factor: 1.0 (Poisson process)",
                                     "Maximum request concurrency: 4"])
        for line, pattern in zip(lines[5:], TABLE):
            self.assertRegex(line, re.compile(pattern + "$"))
        self.assertIn("95 % intervals", lines[5 + len(TABLE)])
        result = json.loads((self.dir / "r.json").read_text())
        self.assertEqual(result["output_lens"], [12] * 8)
        self.assertEqual(result["input_lens"], [16] * 8)
        self.assertEqual(result["completed"] * 12, result["total_output_tokens"])
        self.assertEqual([len(gaps) for gaps in result["itls"]], [11] * 8)
        self.assertEqual(result["errors"], [""] * 8)
        self.assertEqual(result["max_concurrency"], 4)
        self.assertAlmostEqual(result["output_throughput"], 96 / result["duration"])
        self.assertLessEqual(result["hadal"]["max_concurrent_requests"], 4)
        for i in range(8):
            total = result["ttfts"][i] + sum(result["itls"][i])
            self.assertAlmostEqual(total, result["hadal"]["latencies"][i], places=6)

    def model(self):
        return json.loads(self.server.call("GET", "/v1/models")[2])["data"][0]["id"]

    def test_the_same_seed_asks_the_same(self):
        texts = []
        for name, seed in (("a", 5), ("b", 5), ("c", 6)):
            self.measure("--save-result", "--result-filename", name + ".json", "--seed", seed, "--random-range-ratio", 0.5)
            result = json.loads((self.dir / (name + ".json")).read_text())
            texts.append((result["input_lens"], result["output_lens"], result["generated_texts"]))
        self.assertEqual(texts[0], texts[1])
        self.assertNotEqual(texts[0], texts[2])
        self.assertTrue(all(8 <= n <= 16 for n in texts[0][0]))
        self.assertTrue(all(6 <= n <= 12 for n in texts[0][1]))

    def test_chat_rates_goodput_and_details(self):
        done = self.measure("--backend", "openai-chat", "--request-rate", 200, "--burstiness", 0.5, "--goodput",
                            "ttft:100000", "e2el:100000", "--percentile-metrics", "ttft,e2el", "--metric-percentiles",
                            "50,99.9", "--save-detailed", "--metadata", "host=here", "--result-filename", "c.json")
        self.assertIn("Traffic request rate: 200.0\nBurstiness factor: 0.5 (Gamma distribution)", done.stdout)
        self.assertRegex(done.stdout, r"Request goodput \(req/s\): {17}\d")
        self.assertRegex(done.stdout, r"-{16}End-to-end Latency-{16}\n")
        self.assertIn("P99.9 E2EL (ms):", done.stdout)
        self.assertNotIn("ITL (ms)", done.stdout)
        result = json.loads((self.dir / "c.json").read_text())
        self.assertEqual(result["host"], "here")
        self.assertAlmostEqual(result["request_goodput:"], result["request_throughput"])
        self.assertIn("p99.9_e2el_ms", result)
        self.assertEqual(result["total_output_tokens"], 96)
        records = [json.loads(line) for line in (self.dir / "c.requests.jsonl").read_text().splitlines()]
        self.assertEqual([record["output_tokens"] for record in records], [12] * 8)
        self.assertEqual([record["ttft_s"] for record in records], result["ttfts"])
        none = self.measure("--goodput", "ttft:0")
        self.assertRegex(none.stdout, r"Request goodput \(req/s\): {17}0\.00")

    def test_a_list_of_loads_is_measured_in_turn_and_drawn(self):
        chart = self.dir / "sweep.svg"
        done = self.measure("--max-concurrency", "1,4", "--plot", chart, "--save-result")
        self.assertEqual(done.stdout.count("Serving Benchmark Result"), 2)
        for name in ("sweep.svg", "sweep-concurrency1.svg", "sweep-concurrency4.svg"):
            xml.dom.minidom.parse(str(self.dir / name))
        names = sorted(path.name for path in self.dir.glob("*.json"))
        self.assertEqual(len(names), 2)
        self.assertRegex(names[0], r"^vllm-infqps-concurrency1-.*-\d{8}-\d{6}\.json$")

    def test_files_of_conversations_and_poems(self):
        talk = [{"conversations": [{"value": f"Tom has {i} eggs and Ann has {i} more."}, {"value": "They have eggs. " * 3}]}
                for i in range(20)]
        (self.dir / "talk.json").write_text(json.dumps(talk))
        done = bench("--base-url", self.server.url, "--dataset-path", self.dir / "talk.json", "--num-prompts", 5,
                     "--sharegpt-output-len", 4, "--ignore-eos")
        self.assertRegex(done.stdout, r"Total generated tokens: +20 ")
        (self.dir / "poem.txt").write_text("".join(f"Tom has {i} eggs\n" for i in range(40)))
        done = bench("--base-url", self.server.url, "--dataset-name", "sonnet", "--dataset-path", self.dir / "poem.txt",
                     "--num-prompts", 3, "--sonnet-input-len", 200, "--sonnet-prefix-len", 100, "--sonnet-output-len", 5,
                     "--ignore-eos")
        self.assertRegex(done.stdout, r"Total generated tokens: +15 ")

    def test_what_is_sent(self):
        Recording.bodies = []
        peer = ThreadingHTTPServer(("127.0.0.1", 0), Recording)
        threading.Thread(target=peer.serve_forever, daemon=True).start()
        self.addCleanup(peer.server_close)
        self.addCleanup(peer.shutdown)
        url = f"http://127.0.0.1:{peer.server_port}"
        bench("--base-url", url, "--tokenizer", NANO, "--random-input-len", 4, "--random-output-len", 3, "--num-prompts", 2,
              "--num-warmups", 1, "--max-concurrency", 1, "--top-p", 0.9, "--extra-body", '{"user": "me"}', "--logprobs", 2,
              env={"OPENAI_API_KEY": "secret"})
        self.assertEqual(len(Recording.bodies), 4)  # test request, warm-up, two requests
        self.assertEqual([body["max_tokens"] for _, _, body in Recording.bodies], [10, 3, 3, 3])
        path, key, body = Recording.bodies[-1]
        self.assertEqual((path, key), ("/v1/completions", "Bearer secret"))
        self.assertEqual({name: value for name, value in body.items() if name != "prompt"},
                         {"model": "m", "temperature": 0.0, "max_tokens": 3, "best_of": 1, "logprobs": 2, "stream": True,
                          "stream_options": {"include_usage": True}, "top_p": 0.9, "user": "me"})
        missing = bench("--base-url", url, returncode=2)
        self.assertIn("--tokenizer /nowhere", missing.stderr)

    def test_wrong_command_lines(self):
        for arguments, words in [(["--backend", "tgi"], "--backend"), (["--request-rate", "0"], "--request-rate"),
                                 (["--goodput", "itl:3"], "goodput 'itl:3'"), (["--metric-percentiles", "101"], "101"),
                                 (["--percentile-metrics", "x"], "'x'"), (["--num-prompts", "0"], "--num-prompts"),
                                 (["--random-range-ratio", "2"], "range ratio 2"), (["--dataset-name", "sonnet"], "--dataset-path"),
                                 (["--endpoint", "/v1/chat/completions"], "--endpoint"), (["--seed", "-1"], "--seed"),
                                 (["--extra-body", "[1]"], "--extra-body"), (["--burstines", "1"], "--burstiness")]:
            with self.subTest(arguments=arguments):
                done = bench("--base-url", self.server.url, "--model", "models/nano", *arguments, returncode=2)
                self.assertIn(words, done.stderr + done.stdout)

    def test_a_server_that_is_not_there_or_refuses(self):
        done = bench("--base-url", "http://127.0.0.1:1", "--model", NANO, returncode=1)
        self.assertIn("nobody listens there", done.stderr)
        done = bench("--base-url", self.server.url, "--model", NANO, "--served-model-name", "other", returncode=1)
        self.assertIn("the test request failed: 404", done.stderr)

    def test_a_server_that_dies_fails_what_is_left(self):
        with Server() as server:
            client = subprocess.Popen([BINARY, "bench", "serve", "--base-url", server.url, "--random-input-len", "64",
                                       "--random-output-len", "900", "--num-prompts", "40", "--max-concurrency", "2",
                                       "--ignore-eos"], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            self.addCleanup(client.kill)
            while "Maximum request concurrency" not in (line := client.stdout.readline()):
                self.assertTrue(line, "the client ended before the run began")
            time.sleep(0.5)
            server.stop(signal.SIGKILL)
            out, _ = client.communicate(timeout=60)
        self.assertEqual(client.returncode, 1, out)
        self.assertRegex(out, r"\d+ of 40 requests failed; the first: request \d+: http://127")

    def test_guides_script(self):
        script = subprocess.run([REPOSITORY / "scripts/benchmark_client.sh", "--disable-tqdm"], capture_output=True, text=True,
                                timeout=300, env={**os.environ, "HADAL": str(BINARY), "BASE_URL": self.server.url, "TOKENIZER": str(NANO),
                                                  "INPUT_LEN": "8", "OUTPUT_LEN": "4", "RESULT_DIR": str(self.dir)})
        self.assertEqual(script.returncode, 0, script.stderr)
        results = sorted(self.dir.glob("benchmark_serving_*_random_batchsize_*_in_8_out_4_ratio_1_rate_inf_prompts_*.json"))
        self.assertEqual([json.loads(path.read_text())["completed"] for path in results], [3, 96])


if __name__ == "__main__":
    unittest.main()
