"""Counts that dashboards rely on, exactly: vLLM's own counting test, aborts, and what switching statistics off leaves."""
from __future__ import annotations

import http.client
import json
import re
import time
import unittest

from serving import Server

NUM_REQUESTS = 10
NUM_TOKENS = 10


class Scrape:
    """-> value of a series by name and a part of its labels"""

    def __init__(self, server: Server):
        status, headers, self.text = server.call("GET", "/metrics")
        assert status == 200 and headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8", headers

    def __call__(self, name: str, labels: str = "") -> float | None:
        for line in self.text.splitlines():
            match = re.fullmatch(rf"{re.escape(name)}(?:{{(.*)}})? (\S+)", line)
            if match and labels in (match.group(1) or ""):
                return float(match.group(2))
        return None


class Metrics(unittest.TestCase):
    def test_counts_are_exact(self) -> None:
        with Server() as server:
            prompt = "The quick brown fox"
            num_prompt = server.post("/tokenize", {"prompt": prompt})["count"]
            for _ in range(NUM_REQUESTS):
                answer = server.post("/v1/completions", {"prompt": prompt, "max_tokens": NUM_TOKENS, "temperature": 0,
                                                         "ignore_eos": True})
                self.assertEqual(answer["usage"]["prompt_tokens"], num_prompt)
                self.assertEqual(answer["usage"]["completion_tokens"], NUM_TOKENS)
            value = self.settled(server, lambda v: v("vllm:iteration_tokens_total_count") == NUM_REQUESTS * NUM_TOKENS)
            for name in ("time_to_first_token_seconds", "e2e_request_latency_seconds", "request_queue_time_seconds",
                         "time_in_queue_requests", "request_inference_time_seconds", "request_prefill_time_seconds",
                         "request_decode_time_seconds", "request_prompt_tokens", "request_generation_tokens",
                         "request_params_n", "request_params_max_tokens", "request_max_num_generation_tokens",
                         "request_time_per_output_token_seconds", "request_prefill_kv_computed_tokens"):
                self.assertEqual(value(f"vllm:{name}_count"), NUM_REQUESTS, name)
            for name in ("time_per_output_token_seconds", "inter_token_latency_seconds"):
                self.assertEqual(value(f"vllm:{name}_count"), NUM_REQUESTS * (NUM_TOKENS - 1), name)
            expected = {
                "vllm:iteration_tokens_total_sum": NUM_REQUESTS * (num_prompt + NUM_TOKENS),
                "vllm:iteration_tokens_total_count": NUM_REQUESTS * NUM_TOKENS,
                "vllm:request_prompt_tokens_sum": NUM_REQUESTS * num_prompt,
                "vllm:request_generation_tokens_sum": NUM_REQUESTS * NUM_TOKENS,
                "vllm:request_params_max_tokens_sum": NUM_REQUESTS * NUM_TOKENS,
                "vllm:prompt_tokens_total": NUM_REQUESTS * num_prompt,
                "vllm:generation_tokens_total": NUM_REQUESTS * NUM_TOKENS,
                "vllm:num_requests_running": 0, "vllm:num_requests_waiting": 0, "vllm:num_preemptions_total": 0,
            }
            for name, wanted in expected.items():
                self.assertEqual(value(name), wanted, name)
            successes = re.findall(r"^vllm:request_success_total\{.*\} (\S+)$", value.text, re.M)
            self.assertEqual(sum(map(float, successes)), NUM_REQUESTS)
            sources = [value("vllm:prompt_tokens_by_source_total", f'source="{source}"')
                       for source in ("local_compute", "local_cache_hit", "external_kv_transfer")]
            self.assertEqual(sum(sources), NUM_REQUESTS * num_prompt)
            self.assertEqual(value("http_requests_total", 'handler="/v1/completions",method="POST",status="2xx"'),
                             NUM_REQUESTS)
            self.assertIsNone(value("http_requests_total", 'handler="/metrics"'))
            self.check_histograms(value.text)

    def check_histograms(self, text: str) -> None:
        """Buckets never fall, and the last one is the count."""
        last: dict[str, float] = {}
        for name, labels, bound, count in re.findall(r'^(\S+)_bucket\{(.*?),?le="([^"]+)"\} (\S+)$', text, re.M):
            series = f"{name}{{{labels}}}"
            self.assertGreaterEqual(float(count), last.get(series, 0), series)
            last[series] = float(count)
            if bound == "+Inf":
                counted = re.search(rf"^{re.escape(name)}_count(?:{{{re.escape(labels)}}})? (\S+)$", text, re.M)
                self.assertEqual(float(counted.group(1)), float(count), series)
        self.assertGreater(len(last), 10)

    def test_clients_that_leave_count_as_aborted(self) -> None:
        with Server() as server:
            for stream in (True, False):
                connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
                body = {"prompt": "a", "max_tokens": 1500, "ignore_eos": True, "stream": stream}
                connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
                self.settled(server, lambda v: v("vllm:num_requests_running") == 1)
                connection.close()
                self.settled(server, lambda v: v("vllm:num_requests_running") == 0)
            value = self.settled(server, lambda v: v("vllm:request_success_total", 'finished_reason="abort"') == 2)
            self.assertEqual(value("vllm:request_success_total", 'finished_reason="length"'), 0)
            value = self.settled(server, lambda v: v("vllm:kv_cache_usage_perc") == 0)
            self.assertEqual(value("vllm:gpu_cache_usage_perc"), 0)

    def test_without_statistics(self) -> None:
        with Server(args=("--disable-log-stats",)) as server:
            server.post("/v1/completions", {"prompt": "a", "max_tokens": 2})
            value = Scrape(server)
            self.assertNotIn("vllm:", value.text)
            self.assertIsNotNone(value("process_resident_memory_bytes"))
            self.assertIsNotNone(value("http_requests_total", 'handler="/v1/completions"'))

    def settled(self, server: Server, condition) -> Scrape:
        """The engine counts a step after it has answered: polls."""
        deadline = time.monotonic() + 60
        while True:
            value = Scrape(server)
            if condition(value):
                return value
            self.assertLess(time.monotonic(), deadline, value.text)
            time.sleep(0.05)


if __name__ == "__main__":
    unittest.main()
