// The official client: models, chat, streams, completion, tools, structured output, responses, errors. Usage: node ... BASE_URL
import assert from "node:assert/strict";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "unused", maxRetries: 0 });
const messages = [{ role: "user", content: "List 3 countries and their capitals." }];

const models = [];
for await (const model of client.models.list()) models.push(model);
assert.equal(models.length, 1);
const model = models[0].id;
assert.equal((await client.models.retrieve(model)).id, model);

const chat = await client.chat.completions.create({ model, messages, temperature: 0, max_tokens: 128 });
assert.equal(chat.object, "chat.completion");
assert.equal(chat.choices[0].message.role, "assistant");
assert.equal(chat.choices[0].finish_reason, "stop");
assert.ok(chat.choices[0].message.content.length > 10, JSON.stringify(chat));
assert.equal(chat.usage.total_tokens, chat.usage.prompt_tokens + chat.usage.completion_tokens);

const stream = await client.chat.completions.create({
  model, messages, temperature: 0, max_tokens: 128, stream: true, stream_options: { include_usage: true },
});
let content = "";
let usage = null;
let finishReason = null;
for await (const chunk of stream) {
  content += chunk.choices[0]?.delta?.content ?? "";
  finishReason ??= chunk.choices[0]?.finish_reason ?? null;
  usage = chunk.usage ?? usage;
}
assert.equal(content, chat.choices[0].message.content);
assert.equal(finishReason, "stop");
assert.deepEqual([usage.prompt_tokens, usage.completion_tokens], [chat.usage.prompt_tokens, chat.usage.completion_tokens]);

const completion = await client.completions.create({
  model, prompt: "Question: Tom has 3 apples and buys 4 more. How many apples does he have?\nAnswer:",
  temperature: 0, max_tokens: 8, logprobs: 2,
});
assert.equal(completion.object, "text_completion");
assert.equal(completion.usage.completion_tokens, completion.choices[0].logprobs.tokens.length);

// The stream helper throws when a call or a choice lacks a field that its types promise.
const parameters = {
  type: "object", properties: { city: { enum: ["Paris", "Rome"] }, days: { type: "integer", minimum: 1, maximum: 9 } },
  required: ["city", "days"], additionalProperties: false,
};
const checkWeather = (text) => {
  const value = JSON.parse(text);
  assert.deepEqual(Object.keys(value).sort(), ["city", "days"]);
  assert.ok(["Paris", "Rome"].includes(value.city) && value.days >= 1 && value.days <= 9, text);
};
const tools = [{ type: "function", function: { name: "get_weather", parameters } }];
const named = { type: "function", function: { name: "get_weather" } };
for (const [tool_choice, reason] of [[named, "stop"], ["required", "tool_calls"]]) {
  const asked = { model, messages, tools, tool_choice, temperature: 0, max_tokens: 2000 };
  const whole = (await client.chat.completions.create(asked)).choices[0];
  assert.equal(whole.finish_reason, reason);
  assert.ok(whole.message.tool_calls.length > 0, JSON.stringify(whole));
  const calls = [];
  const final = await client.chat.completions.stream(asked)
    .on("tool_calls.function.arguments.done", (call) => calls.push(call.arguments)).finalChatCompletion();
  const streamed = final.choices[0].message.tool_calls;
  assert.equal(final.choices[0].finish_reason, reason);
  assert.deepEqual(streamed.map((call) => call.function.arguments), calls);
  assert.deepEqual(calls, whole.message.tool_calls.map((call) => call.function.arguments));
  for (const call of streamed) {
    assert.ok(call.id && call.type === "function" && call.function.name === "get_weather", JSON.stringify(call));
    checkWeather(call.function.arguments);
  }
}

const response_format = { type: "json_schema", json_schema: { name: "weather", strict: true, schema: parameters } };
const structured = { model, messages, response_format, temperature: 0, max_tokens: 2000 };
const wholeWeather = (await client.chat.completions.create(structured)).choices[0].message;
checkWeather(wholeWeather.content);
assert.ok(wholeWeather.reasoning_content.length > 0);
assert.equal(await client.chat.completions.stream(structured).finalContent(), wholeWeather.content);

const response = await client.responses.create({
  model, input: messages[0].content, temperature: 0, max_output_tokens: 128,
});
assert.equal(response.output_text, chat.choices[0].message.content);
const responseStream = client.responses.stream({
  model, input: messages[0].content, temperature: 0, max_output_tokens: 128,
});
const finalResponse = await responseStream.finalResponse();
assert.equal(finalResponse.output.at(-1).content[0].text, response.output_text);
assert.equal(finalResponse.status, "completed");

await assert.rejects(client.chat.completions.create({ model: "no-such-model", messages }), (error) => {
  assert.ok(error instanceof OpenAI.NotFoundError);
  assert.match(error.message, /no-such-model/);
  return true;
});
await assert.rejects(client.chat.completions.create({ model, messages, temperature: -1 }), OpenAI.BadRequestError);

console.log("all checks passed");
