"""Acceptance checks 38 to 40: many clients, exact metrics, the benchmark client, the end."""
from __future__ import annotations

import concurrent.futures
import http.client
import json
import random
import signal
import socket
import threading
import time

from serving import Server

from acceptance_table import COMPLETIONS, LIST, PROBLEM, check, complete, equal, metric, tokens_of


def cancelled_stream(server: Server, hold_s: float) -> None:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
    body = {"prompt": LIST, "max_tokens": 20000, "ignore_eos": True, "stream": True}
    connection.request("POST", COMPLETIONS, json.dumps(body), {"Content-Type": "application/json"})
    time.sleep(hold_s)
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()


@check(38, "200 streams cancelled after half a second leave nothing behind", own_server=())
def check_cancellation(server):
    complete(server)
    with concurrent.futures.ThreadPoolExecutor(200) as pool:
        list(pool.map(lambda _: cancelled_stream(server, 0.5), range(200)))
    began = time.monotonic()
    complete(server, max_tokens=10)
    taken = time.monotonic() - began
    assert taken < 5, f"a 10-token request took {taken:.1f} s"
    deadline = time.monotonic() + 30
    while metric(server, "vllm:num_requests_running") + metric(server, "vllm:num_requests_waiting") > 0:
        assert time.monotonic() < deadline, "requests are still running"
        time.sleep(0.05)
    equal(metric(server, "vllm:kv_cache_usage_perc"), 0)
    equal(metric(server, "vllm:request_success_total", finished_reason="abort"), 200)
    return f"a 10-token request after that took {taken:.2f} s"


@check(39, "/metrics after 10 requests of 10 tokens: exact counts", own_server=("--no-enable-prefix-caching",))
def check_metrics(server):
    prompt = len(tokens_of(server, PROBLEM))
    for _ in range(10):
        complete(server, max_tokens=10, ignore_eos=True)
    once = ("time_to_first_token_seconds", "e2e_request_latency_seconds", "request_queue_time_seconds",
            "request_inference_time_seconds", "request_prefill_time_seconds", "request_decode_time_seconds",
            "request_prompt_tokens", "request_generation_tokens", "request_params_n", "request_params_max_tokens")
    expected = {f"vllm:{name}_count": 10 for name in once} | {
        "vllm:time_per_output_token_seconds_count": 90, "vllm:iteration_tokens_total_sum": 10 * (prompt + 10),
        "vllm:iteration_tokens_total_count": 100, "vllm:request_prompt_tokens_sum": 10 * prompt,
        "vllm:request_generation_tokens_sum": 100, "vllm:request_params_max_tokens_sum": 100,
        "vllm:prompt_tokens_total": 10 * prompt, "vllm:generation_tokens_total": 100, "vllm:request_success_total": 10}
    equal({name: metric(server, name) for name in expected}, expected)


def read_as_old_client(response) -> tuple[str, int, float]:
    """The rule of vLLM's benchmark client: every line that is not empty is JSON behind "data: ". -> text, tokens, TTFT"""
    began, text, num_tokens, first = time.monotonic(), "", 0, 0.0
    for line in response:
        line = line.strip()
        if not line:
            continue
        chunk = line.decode().removeprefix("data: ")
        if chunk == "[DONE]":
            continue
        data = json.loads(chunk)
        if choices := data.get("choices"):
            first = first or time.monotonic() - began
            text += choices[0].get("text") or ""
        elif usage := data.get("usage"):
            num_tokens = usage["completion_tokens"]
    return text, num_tokens, first


def old_client_request(server: Server, prompt: str) -> tuple[str, int, float]:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=300)
    body = {"model": "models/nano", "prompt": prompt, "temperature": 0.0, "best_of": 1, "max_tokens": 128, "logprobs": None,
            "stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True}
    connection.request("POST", COMPLETIONS, json.dumps(body),
                       {"Content-Type": "application/json", "Authorization": "Bearer None"})
    response = connection.getresponse()
    equal(response.status, 200)
    result = read_as_old_client(response)
    connection.close()
    return result


def random_prompts(server: Server, count: int, length: int) -> list[str]:
    """The client's random data set: runs of ids from a random offset, sent as text."""
    vocabulary, generator, prompts = 2000, random.Random(0), []
    for index in range(count):
        offset = generator.randrange(vocabulary)
        ids = [(offset + index + position) % vocabulary for position in range(length)]
        prompts.append(server.post("/detokenize", {"tokens": ids})["prompt"])
    return prompts


def stop_during_stream(server: Server) -> None:
    """SIGTERM in the middle of a stream: the stream ends as it should, then the program, with 0."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=120)
    body = {"prompt": LIST, "max_tokens": 2000, "ignore_eos": True, "stream": True}
    connection.request("POST", COMPLETIONS, json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    lines = [response.readline()]
    codes: list[int] = []
    stopper = threading.Thread(target=lambda: codes.append(server.stop(signal.SIGTERM)))
    stopper.start()
    lines += response.readlines()
    stopper.join()
    connection.close()
    events = [line for line in lines if line.startswith(b"data: ")]
    equal((len(events), events[-1], codes), (2001, b"data: [DONE]\n", [0]))


@check(40, "the old benchmark client: random 1024/128, concurrency 32, 96 prompts; then SIGTERM in a stream", own_server=())
def check_benchmark_client(server):
    prompts = random_prompts(server, 96, 1024)
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        results = list(pool.map(lambda prompt: old_client_request(server, prompt), prompts))
    equal([num_tokens for _, num_tokens, _ in results], [128] * 96)
    assert all(text and first > 0 for text, _, first in results)
    stop_during_stream(server)
    return "lm_eval's part: lm_eval_test.py"
