"""The official Python client: models, chat, streams, tools, structured output, completions, responses, errors.
Usage: python openai_client.py BASE_URL"""
import json
import sys
from typing import Literal

import openai
from pydantic import BaseModel

client = openai.OpenAI(base_url=sys.argv[1], api_key="unused", max_retries=0)
messages = [{"role": "user", "content": "List 3 countries and their capitals."}]
parameters = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
              "required": ["city", "days"], "additionalProperties": False}
tools = [{"type": "function", "function": {"name": "get_weather", "parameters": parameters}}]
named = {"type": "function", "function": {"name": "get_weather"}}


class Weather(BaseModel):
    city: Literal["Paris", "Rome"]
    sunny: bool


def check_arguments(text: str) -> None:
    arguments = json.loads(text)
    assert set(arguments) == {"city", "days"} and arguments["city"] in ("Paris", "Rome"), text
    assert 1 <= arguments["days"] <= 9, text


model = client.models.list().data[0].id
assert client.models.retrieve(model).id == model

# Chat, whole and streamed.
chat = client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=128)
answer = chat.choices[0].message
assert answer.content.count(":") >= 3 and chat.choices[0].finish_reason == "stop", chat
assert answer.reasoning_content and answer.reasoning_content == answer.reasoning, chat
with client.chat.completions.stream(model=model, messages=messages, temperature=0, max_tokens=128,
                                    stream_options={"include_usage": True}) as stream:
    streamed = stream.get_final_completion()
assert streamed.choices[0].message.content == answer.content, streamed
assert streamed.usage.completion_tokens == chat.usage.completion_tokens, streamed
logprobs = client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=4, logprobs=True,
                                          top_logprobs=3).choices[0].logprobs.content
assert [len(entry.top_logprobs) for entry in logprobs] == [3] * 4, logprobs
assert all(entry.logprob == entry.top_logprobs[0].logprob for entry in logprobs), logprobs

# Tools, whole and streamed.
for choice, reason in ((named, "stop"), ("required", "tool_calls")):
    asked = {"model": model, "messages": messages, "tools": tools, "tool_choice": choice, "temperature": 0, "max_tokens": 2000}
    called = client.chat.completions.create(**asked).choices[0]
    assert called.finish_reason == reason and called.message.tool_calls, called
    for call in called.message.tool_calls:
        assert call.function.name == "get_weather" and call.id, call
        check_arguments(call.function.arguments)
    with client.chat.completions.stream(**asked) as stream:
        final = stream.get_final_completion().choices[0].message
    assert [call.function.arguments for call in final.tool_calls] == \
        [call.function.arguments for call in called.message.tool_calls], final
turn = client.chat.completions.create(model=model, temperature=0, max_tokens=64, messages=[
    *messages, {"role": "assistant", "tool_calls": [call.model_dump() for call in called.message.tool_calls]},
    *({"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in called.message.tool_calls)])
assert turn.choices[0].finish_reason in ("stop", "length"), turn

# Structured output from a Pydantic class.
parsed = client.chat.completions.parse(model=model, messages=messages, temperature=0, max_tokens=2000, response_format=Weather)
assert isinstance(parsed.choices[0].message.parsed, Weather), parsed
assert parsed.choices[0].message.reasoning_content, parsed

# Completions.
prompt = "Question: Tom has 3 apples and buys 4 more. How many apples does he have?\nAnswer:"
completion = client.completions.create(model=model, prompt=prompt, temperature=0, max_tokens=8, logprobs=2, echo=True)
lists = completion.choices[0].logprobs
assert completion.choices[0].text.startswith(prompt), completion
assert len(lists.tokens) == completion.usage.total_tokens and lists.token_logprobs[0] is None, completion
text = "".join(chunk.choices[0].text for chunk in
               client.completions.create(model=model, prompt=prompt, temperature=0, max_tokens=8, stream=True))
assert prompt + text == completion.choices[0].text, text

# Responses.
response = client.responses.create(model=model, input=messages[0]["content"], temperature=0, max_output_tokens=128)
assert response.output_text == answer.content and response.status == "completed", response
assert response.output[0].type == "reasoning" and response.output[0].content[0].text == answer.reasoning_content, response
assert client.responses.retrieve(response.id).output_text == response.output_text
with client.responses.stream(model=model, input=messages[0]["content"], temperature=0, max_output_tokens=128) as stream:
    kinds = {event.type for event in stream}
    final = stream.get_final_response()
assert final.output_text == response.output_text, final
assert {"response.created", "response.reasoning_text.delta", "response.output_text.done", "response.completed"} <= kinds, kinds
flat = [{"type": "function", "name": "get_weather", "parameters": parameters, "strict": True}]
called = client.responses.create(model=model, input="Weather?", tools=flat, tool_choice="required", temperature=0,
                                 max_output_tokens=2000)
calls = [item for item in called.output if item.type == "function_call"]
assert calls and all(call.name == "get_weather" for call in calls), called
check_arguments(calls[0].arguments)
followed = client.responses.create(model=model, previous_response_id=called.id, temperature=0, max_output_tokens=64, input=[
    {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"} for call in calls])
assert followed.usage.input_tokens > called.usage.input_tokens, followed
structured = client.responses.parse(model=model, input="Weather?", text_format=Weather, temperature=0, max_output_tokens=2000)
assert isinstance(structured.output_parsed, Weather), structured

# Errors.
for asked, kind in (({"model": "no-such-model"}, openai.NotFoundError), ({"model": model, "temperature": -1}, openai.BadRequestError)):
    try:
        client.chat.completions.create(messages=messages, **asked)
    except kind as error:
        assert ("no-such-model" if kind is openai.NotFoundError else "temperature") in error.message, error.message
    else:
        raise AssertionError(asked)

print("all checks passed")
