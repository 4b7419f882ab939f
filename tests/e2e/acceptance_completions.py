"""Acceptance checks 4 to 28: /v1/completions."""
from __future__ import annotations

import concurrent.futures
import http.client
import json

from acceptance_table import CHAT, COMPLETIONS, GREEDY, LIST, PROBLEM, TALK, check, complete, equal, error_of, text_of, tokens_of


@check(4, "completion of 5 tokens: one choice, length, usage adds up")
def check_completion(server):
    answer = complete(server)
    equal([(choice["index"], choice["finish_reason"]) for choice in answer["choices"]], [(0, "length")])
    usage = answer["usage"]
    equal(usage["completion_tokens"], 5)
    equal(usage["total_tokens"], usage["prompt_tokens"] + 5)


@check(5, "completion without max_tokens: 16 tokens at most")
def check_default_length(server):
    answer = server.post(COMPLETIONS, {"prompt": PROBLEM, "ignore_eos": True, **GREEDY})
    equal(answer["usage"]["completion_tokens"], 16)


@check(6, "two prompts, n 2: four choices, prompt by prompt, prompts counted once")
def check_several_prompts(server):
    answer = complete(server, prompt=[PROBLEM, LIST], n=2, temperature=0.8, echo=True)
    equal([choice["index"] for choice in answer["choices"]], [0, 1, 2, 3])
    for choice in answer["choices"]:
        assert choice["text"].startswith((PROBLEM, LIST)[choice["index"] // 2]), choice
    equal(answer["usage"]["prompt_tokens"], len(tokens_of(server, PROBLEM)) + len(tokens_of(server, LIST)))


@check(7, "ids of the tokenised text and the text: same answer, same count")
def check_ids_and_text(server):
    by_text, by_ids = complete(server), complete(server, prompt=tokens_of(server, PROBLEM))
    equal(text_of(by_ids), text_of(by_text))
    equal(by_ids["usage"]["prompt_tokens"], by_text["usage"]["prompt_tokens"])


@check(8, "ids without BOS: none is added")
def check_ids_verbatim(server):
    ids = tokens_of(server, PROBLEM, special=False)
    equal(complete(server, prompt=[ids])["usage"]["prompt_tokens"], len(ids))


THREE_CHOICES = {"prompt": PROBLEM, "n": 3, "max_tokens": 5, "temperature": 0.8, "ignore_eos": True}


@check(9, "stream, n 3, 5 tokens: 5 chunks and one finish_reason per choice")
def check_stream_chunks(server):
    chunks = [event["choices"][0] for event in server.stream(COMPLETIONS, THREE_CHOICES)]
    for index in range(3):
        reasons = [chunk["finish_reason"] for chunk in chunks if chunk["index"] == index]
        equal(reasons, [None] * 4 + ["length"], f"choice {index}")


@check(10, "stream with include_usage: usage in a last event of its own")
def check_usage_event(server):
    options = {"include_usage": True}
    events = server.stream(COMPLETIONS, {"prompt": PROBLEM, "max_tokens": 5, **GREEDY, "stream_options": options})
    equal(len(events), 6)
    equal(events[-1]["choices"], [])
    equal(events[-1]["usage"]["completion_tokens"], 5)
    assert all(event.get("usage") is None for event in events[:-1])


@check(11, "continuous_usage_stats: usage rises by one in every chunk")
def check_continuous_usage(server):
    options = {"include_usage": True, "continuous_usage_stats": True}
    events = server.stream(COMPLETIONS, {"prompt": PROBLEM, "max_tokens": 5, **GREEDY, "stream_options": options})
    usages = [event["usage"] for event in events]
    equal([usage["completion_tokens"] for usage in usages], [1, 2, 3, 4, 5, 5])
    for usage in usages:
        equal(usage["total_tokens"], usage["prompt_tokens"] + usage["completion_tokens"])


@check(12, "bytes of the stream of check 9: nothing but data lines")
def check_stream_bytes(server):
    status, headers, text = server.call("POST", COMPLETIONS, {**THREE_CHOICES, "stream": True})
    equal(status, 200)
    assert headers["Content-Type"].startswith("text/event-stream"), headers
    lines = text.split("\n")
    assert all(line == "" or line.startswith("data: ") for line in lines), text
    equal(lines.count("data: [DONE]"), 1)
    equal(sum(line != "" for line in lines), 3 * 5 + 1)


@check(13, "logprobs 5: four lists of 5, 5 or 6 alternatives, none above 0")
def check_logprobs(server):
    logprobs = complete(server, logprobs=5)["choices"][0]["logprobs"]
    equal({name: len(values) for name, values in logprobs.items()},
          dict.fromkeys(("tokens", "token_logprobs", "top_logprobs", "text_offset"), 5))
    assert all(5 <= len(top) <= 6 and max(top.values()) <= 0 for top in logprobs["top_logprobs"]), logprobs
    assert all(value <= 0 for value in logprobs["token_logprobs"]), logprobs


@check(14, "logprobs 0: the chosen token only; absent: null")
def check_no_alternatives(server):
    equal([len(top) for top in complete(server, logprobs=0)["choices"][0]["logprobs"]["top_logprobs"]], [1] * 5)
    equal(complete(server)["choices"][0]["logprobs"], None)


@check(15, "logprobs 21: 400")
def check_too_many_logprobs(server):
    error_of(server, COMPLETIONS, {"prompt": PROBLEM, "logprobs": 21}, 400, "logprobs", "21", "20")


@check(16, "echo with logprobs and one token: P + 1 entries, greedy positions equal the best exactly")
def check_echo_logprobs(server):
    prompt = tokens_of(server, PROBLEM)
    greedy = complete(server, max_tokens=12, return_token_ids=True)["choices"][0]["token_ids"]
    ids = prompt + greedy
    logprobs = complete(server, prompt=[ids], echo=True, logprobs=1, max_tokens=1)["choices"][0]["logprobs"]
    equal([len(values) for values in logprobs.values()], [len(ids) + 1] * 4)
    equal((logprobs["token_logprobs"][0], logprobs["top_logprobs"][0]), (None, None))
    for position in range(len(prompt), len(ids)):
        equal(logprobs["token_logprobs"][position], max(logprobs["top_logprobs"][position].values()), str(position))


@check(17, "echo with max_tokens 0: the prompt and its P entries")
def check_echo_alone(server):
    answer = complete(server, echo=True, max_tokens=0, logprobs=1)
    equal(text_of(answer), PROBLEM)
    equal(len(answer["choices"][0]["logprobs"]["tokens"]), len(tokens_of(server, PROBLEM)))
    equal(answer["usage"]["completion_tokens"], 0)


@check(18, "stop at a newline, with and without it in the text")
def check_stop(server):
    whole = text_of(complete(server, max_tokens=32))
    cut = whole[:whole.index("\n")]
    for include, expected in ((False, cut), (True, cut + "\n")):
        choice = complete(server, max_tokens=32, stop=["\n"], include_stop_str_in_output=include)["choices"][0]
        equal((choice["text"], choice["finish_reason"], choice["stop_reason"]), (expected, "stop", "\n"))


@check(19, "stream with a stop string across two tokens: no part of it is sent")
def check_stop_across_tokens(server):
    choice = complete(server, max_tokens=32, logprobs=0)["choices"][0]
    tokens, whole, tried = choice["logprobs"]["tokens"], choice["text"], 0
    for left, right in zip(tokens[1:], tokens[2:]):
        stop = left[-1:] + right[:1]
        if len(stop) < 2 or stop not in whole or stop in left or stop in right:
            continue
        events = server.stream(COMPLETIONS, {"prompt": PROBLEM, "max_tokens": 32, **GREEDY, "stop": [stop]})
        chunks = [event["choices"][0] for event in events]
        equal("".join(chunk["text"] for chunk in chunks), whole[:whole.index(stop)], repr(stop))
        equal(chunks[-1]["stop_reason"], stop)
        tried += 1
    assert tried > 0, tokens
    return f"{tried} stop strings"


@check(20, "min_tokens 20 against a stop id that comes at once")
def check_min_tokens(server):
    first = complete(server, max_tokens=1, return_token_ids=True)["choices"][0]["token_ids"][0]
    stopped = complete(server, max_tokens=64, stop_token_ids=[first])
    equal((stopped["usage"]["completion_tokens"], stopped["choices"][0]["stop_reason"]), (1, first))
    answer = complete(server, max_tokens=64, stop_token_ids=[first], min_tokens=20, ignore_eos=True)
    assert answer["usage"]["completion_tokens"] >= 20, answer["usage"]


@check(21, "ignore_eos: exactly max_tokens")
def check_ignore_eos(server):
    answer = complete(server, max_tokens=64, ignore_eos=True)
    equal((answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]), (64, "length"))


@check(22, "the same seed twice, then beside 30 other requests: the same text every time")
def check_seed(server):
    def draw() -> str:
        return text_of(complete(server, seed=7, temperature=1, max_tokens=48, ignore_eos=True))
    alone = draw()
    equal(draw(), alone)
    assert text_of(complete(server, seed=8, temperature=1, max_tokens=48, ignore_eos=True)) != alone
    with concurrent.futures.ThreadPoolExecutor(36) as pool:
        noise = [pool.submit(complete, server, prompt=f"{index} {LIST}", temperature=1, max_tokens=200, ignore_eos=True)
                 for index in range(30)]
        crowded = [draw() for _ in range(4)]
        assert sum(not future.done() for future in noise) > 0, "the others had ended before"
        for future in noise:
            future.result()
    equal(crowded, [alone] * 4)
    return "equal in 4 of 4 under load"


@check(23, "logit_bias 100: only that token; an id beyond the vocabulary: 400")
def check_logit_bias(server):
    token = tokens_of(server, "7", special=False)[-1]
    answer = complete(server, logit_bias={str(token): 100}, return_token_ids=True)
    equal(answer["choices"][0]["token_ids"], [token] * 5)
    error_of(server, COMPLETIONS, {"prompt": PROBLEM, "logit_bias": {"999999": 1}}, 400, "999999", "vocabulary, whose size is")


@check(24, "allowed_token_ids: nothing else is sampled")
def check_allowed_tokens(server):
    allowed = tokens_of(server, "37", special=False)
    ids = complete(server, allowed_token_ids=allowed, max_tokens=32, temperature=2, ignore_eos=True,
                   return_token_ids=True)["choices"][0]["token_ids"]
    equal(set(ids) - set(allowed), set())
    assert len(set(ids)) > 1, ids


@check(25, "what old clients send: best_of 1, logprobs null, unknown fields, Bearer None")
def check_old_clients(server):
    body = {"prompt": PROBLEM, "max_tokens": 1, "best_of": 1, "logprobs": None, "use_tqdm": False}
    for key in ("Bearer None", "Bearer "):
        equal(server.call("POST", COMPLETIONS, body, {"Authorization": key})[0], 200, key)


@check(26, "suffix, empty prompts, an id beyond the vocabulary: 400")
def check_bad_prompts(server):
    error_of(server, COMPLETIONS, {"prompt": PROBLEM, "suffix": "x"}, 400, "suffix is not currently supported")
    for prompt in ("", []):
        error_of(server, COMPLETIONS, {"prompt": prompt}, 400, "Prompt cannot be empty")
    error_of(server, COMPLETIONS, {"prompt": [999999]}, 400, "999999 is out of vocabulary")


@check(27, "unknown model 404; bad JSON and values 400, naming the field")
def check_bad_values(server):
    error = error_of(server, COMPLETIONS, {"prompt": PROBLEM, "model": "zebra"}, 404, "The model `zebra` does not exist.")
    equal(error["param"], "model")
    for path, base in ((COMPLETIONS, {"prompt": PROBLEM}), (CHAT, {"messages": TALK})):
        for name, value, *fragments in (("temperature", -1), ("n", 0), ("top_p", 0), ("seed", 2**63, "less_than_equal")):
            error_of(server, path, {**base, name: value}, 400, name, *fragments)
    connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
    connection.request("POST", COMPLETIONS, b'{"prompt": ', {"Content-Type": "application/json"})
    response = connection.getresponse()
    equal(response.status, 400)
    assert "JSON decode error" in json.loads(response.read())["error"]["message"]
    connection.close()


@check(28, "prompt and max_tokens beyond the context, streamed: 400 as JSON")
def check_context(server):
    length = json.loads(server.call("GET", "/v1/models")[2])["data"][0]["max_model_len"]
    for path, base in ((COMPLETIONS, {"prompt": PROBLEM}), (CHAT, {"messages": TALK})):
        error_of(server, path, {**base, "max_tokens": length, "stream": True}, 400,
                 f"maximum context length is {length} tokens")
