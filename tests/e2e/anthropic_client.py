"""Anthropic's official Python client: messages, streams, tools, token counts, errors. Usage: python ... BASE_URL KEY"""
import sys

import anthropic

client = anthropic.Anthropic(base_url=sys.argv[1], api_key=sys.argv[2], max_retries=0)
asked = {"model": "models/nano", "max_tokens": 128, "extra_body": {"temperature": 0}, "system": "You are helpful.",
         "messages": [{"role": "user", "content": "List 3 countries and their capitals."}]}

message = client.messages.create(**asked)
assert [block.type for block in message.content] == ["thinking", "text"], message
assert message.content[1].text.count(":") >= 3 and message.stop_reason == "end_turn", message
counted = client.messages.count_tokens(**{name: asked[name] for name in ("model", "system", "messages")})
usage = message.usage
assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens, (counted, usage)

with client.messages.stream(**asked) as stream:
    text = "".join(stream.text_stream)
    final = stream.get_final_message()
assert text == message.content[1].text, text
assert [block.to_dict() for block in final.content] == [block.to_dict() for block in message.content], final
assert final.usage.output_tokens == usage.output_tokens, final

tools = [{"name": "get_weather", "description": "Weather of a city", "input_schema": {
    "type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"], "additionalProperties": False}}]
for choice in ({"type": "tool", "name": "get_weather"}, {"type": "any"}):
    call = {**asked, "tools": tools, "tool_choice": choice, "max_tokens": 2000}
    used = client.messages.create(**call)
    blocks = [block for block in used.content if block.type == "tool_use"]
    assert used.stop_reason == "tool_use" and blocks and blocks[0].input["city"] in ("Paris", "Rome"), used
    with client.messages.stream(**call) as stream:
        streamed = [block for block in stream.get_final_message().content if block.type == "tool_use"]
    assert [block.input for block in streamed] == [block.input for block in blocks], streamed
results = [{"type": "tool_result", "tool_use_id": block.id, "content": "sunny"} for block in blocks]
turn = client.messages.create(**{**asked, "tools": tools, "tool_choice": {"type": "none"}, "messages": [
    *asked["messages"], {"role": "assistant", "content": [block.to_dict() for block in used.content]},
    {"role": "user", "content": results}]})
assert turn.stop_reason in ("end_turn", "max_tokens"), turn

stopped = client.messages.create(**{**asked, "stop_sequences": ["Japan"]})
assert stopped.stop_reason == "stop_sequence" and stopped.stop_sequence == "Japan", stopped

for change, kind in (({"model": "no-such-model"}, anthropic.NotFoundError), ({"extra_body": {"temperature": -1}}, anthropic.BadRequestError)):
    try:
        client.messages.create(**{**asked, **change})
    except kind as error:
        assert error.body["type"] == "error" and error.body["error"]["message"], error.body
    else:
        raise AssertionError(change)
try:
    anthropic.Anthropic(base_url=sys.argv[1], api_key="wrong", max_retries=0).messages.create(**asked)
except anthropic.AuthenticationError:
    pass
else:
    raise AssertionError("a wrong key was accepted")

print("all checks passed")
