// The official client does chat, streaming chat, completion, model list and an error. Usage: node ... BASE_URL
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

await assert.rejects(client.chat.completions.create({ model: "no-such-model", messages }), (error) => {
  assert.ok(error instanceof OpenAI.NotFoundError);
  assert.match(error.message, /no-such-model/);
  return true;
});
await assert.rejects(client.chat.completions.create({ model, messages, temperature: -1 }), OpenAI.BadRequestError);

console.log("all checks passed");
