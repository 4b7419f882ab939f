"""Acceptance checks 31 to 37: /v1/chat/completions and the token service."""
from __future__ import annotations

import json

from acceptance_table import CHAT, GREEDY, PROBLEM, TALK, check, complete, equal, error_of, tokens_of


@check(31, "chat, streamed and whole: same content, role first, finish_reason last")
def check_chat(server):
    body = {"messages": TALK, "max_tokens": 128, **GREEDY}
    whole = server.post(CHAT, body)["choices"][0]
    chunks = [event["choices"][0] for event in server.stream(CHAT, body)]
    equal(chunks[0]["delta"], {"role": "assistant", "content": ""})
    equal("".join(chunk["delta"].get("content") or "" for chunk in chunks), whole["message"]["content"])
    equal([chunk["finish_reason"] for chunk in chunks], [None] * (len(chunks) - 1) + [whole["finish_reason"]])


@check(32, "chat logprobs with 5 alternatives; top_logprobs alone: 400")
def check_chat_logprobs(server):
    answer = server.post(CHAT, {"messages": TALK, "max_tokens": 6, "logprobs": True, "top_logprobs": 5, **GREEDY})
    entries = answer["choices"][0]["logprobs"]["content"]
    equal(len(entries), 6)
    for entry in entries:
        equal(bytes(entry["bytes"]).decode("utf-8", "replace"), entry["token"])
        equal(len(entry["top_logprobs"]), 5)
    error_of(server, CHAT, {"messages": TALK, "top_logprobs": 5}, 400, "top_logprobs", "logprobs")


@check(33, "reasoning, streamed and whole: split at the marker, under both names, without it")
def check_reasoning(server):
    body = {"messages": TALK, "max_tokens": 128, **GREEDY}
    message = server.post(CHAT, body)["choices"][0]["message"]
    assert message["reasoning"] and message["content"], message
    equal(message["reasoning_content"], message["reasoning"])
    deltas = [event["choices"][0]["delta"] for event in server.stream(CHAT, body)]
    for name in ("reasoning", "reasoning_content", "content"):
        joined = "".join(delta.get(name) or "" for delta in deltas)
        equal(joined, message[name], name)
        assert "think>" not in joined, joined


WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {
    "type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"], "additionalProperties": False}}}
CLOCK = {"type": "function", "function": {"name": "get_time", "parameters": {
    "type": "object", "properties": {"zone": {"enum": ["UTC", "CET"]}}, "required": ["zone"], "additionalProperties": False}}}


def joined_calls(chunks: list[dict]) -> list[dict]:
    """Tool calls as clients put them together from the deltas of a stream."""
    calls: list[dict] = []
    for delta in (piece for chunk in chunks for piece in chunk["delta"].get("tool_calls") or []):
        if delta["index"] == len(calls):
            calls.append({"id": delta["id"], "type": delta["type"],
                          "function": {"name": delta["function"]["name"], "arguments": ""}})
        calls[delta["index"]]["function"]["arguments"] += delta["function"].get("arguments") or ""
    return calls


@check(34, "tool calls, streamed and whole: same names and arguments, finish_reason")
def check_tools(server):
    for choice, reason in ((WEATHER, "stop"), ("required", "tool_calls")):
        named = choice is WEATHER
        body = {"messages": [{"role": "user", "content": "Weather in Paris, and the time?"}], "tools": [WEATHER, CLOCK],
                "tool_choice": {"type": "function", "function": {"name": "get_weather"}} if named else choice,
                "max_tokens": 2000, **GREEDY}
        whole = server.post(CHAT, body)["choices"][0]
        calls = whole["message"]["tool_calls"]
        equal(whole["finish_reason"], reason, str(whole))
        assert calls and not (named and len(calls) > 1), whole
        for call in calls:
            arguments = json.loads(call["function"]["arguments"])
            expected = {"get_weather": {"city", "days"}, "get_time": {"zone"}}[call["function"]["name"]]
            equal(set(arguments), expected)
            assert call["id"] and call["type"] == "function", call
        chunks = [event["choices"][0] for event in server.stream(CHAT, body)]
        streamed = joined_calls(chunks)
        equal([call["function"] for call in streamed], [call["function"] for call in calls])
        equal(len({call["id"] for call in streamed}), len(streamed))
        equal(chunks[-1]["finish_reason"], reason)
    return "the model's own two calls at every cut: the C++ tests of the tool-call parser; the JavaScript helper: openai_client_test.py"


@check(35, "json_schema with thinking: free reasoning, content that parses and validates")
def check_structured_output(server):
    schema = WEATHER["function"]["parameters"]
    answer = server.post(CHAT, {
        "messages": TALK, "max_tokens": 2000, **GREEDY,
        "response_format": {"type": "json_schema", "json_schema": {"name": "weather", "schema": schema}}})
    message = answer["choices"][0]["message"]
    assert message["reasoning"], message
    content = json.loads(message["content"])
    equal(set(content), {"city", "days"})
    assert content["city"] in ("Paris", "Rome") and 1 <= content["days"] <= 9, content


@check(36, "continue_final_message with echo; with add_generation_prompt: 400")
def check_continue(server):
    begun = "1. France:"
    body = {"messages": [*TALK, {"role": "assistant", "content": begun}], "continue_final_message": True, "echo": True,
            "max_tokens": 16, **GREEDY}
    continued = server.post(CHAT, {**body, "add_generation_prompt": False})["choices"][0]["message"]["content"]
    assert continued.startswith(begun) and len(continued) > len(begun), continued
    error_of(server, CHAT, {**body, "add_generation_prompt": True}, 400, "Cannot set both")


@check(37, "tokenize and detokenize agree with usage and give the text back")
def check_tokenize(server):
    text = server.post("/tokenize", {"prompt": PROBLEM})
    equal(text["count"], complete(server)["usage"]["prompt_tokens"])
    chat = server.post("/tokenize", {"messages": TALK})
    equal(chat["count"], server.post(CHAT, {"messages": TALK, "max_tokens": 1})["usage"]["prompt_tokens"])
    plain = tokens_of(server, PROBLEM, special=False)
    equal(server.post("/detokenize", {"tokens": plain})["prompt"], PROBLEM)
