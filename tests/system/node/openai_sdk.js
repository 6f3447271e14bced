// The official SDK with nothing changed but its base URL and key.  Prints one JSON object of what it got.
import OpenAI from "openai";

const [baseURL, apiKey, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const messages = [{ role: "user", content: "What does a token cost?" }];
const tools = [
  {
    type: "function",
    function: {
      name: "weather",
      parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    },
  },
];
const pixel =
  "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

const found = {};

const whole = await client.chat.completions.create({ model, messages, max_tokens: 30 });
found.whole = { text: whole.choices[0].message.content, usage: whole.usage };

const { response } = await client.chat.completions.create({ model, messages, max_tokens: 30 }).withResponse();
found.cost = response.headers.get("x-tollgate-cost-usd");

const stream = await client.chat.completions.create({
  model,
  messages,
  max_tokens: 30,
  stream: true,
  stream_options: { include_usage: true },
});
found.stream = { text: "", usage: null };
for await (const chunk of stream) {
  found.stream.text += chunk.choices[0]?.delta?.content ?? "";
  found.stream.usage = chunk.usage ?? found.stream.usage;
}

const called = await client.chat.completions.create({ model, messages, tools, tool_choice: "required" });
const call = called.choices[0].message.tool_calls[0];
found.tool = { name: call.function.name, arguments: JSON.parse(call.function.arguments) };
const answered = await client.chat.completions.create({
  model,
  tools,
  messages: [...messages, called.choices[0].message, { role: "tool", tool_call_id: call.id, content: "rain" }],
});
found.answered = answered.choices[0].finish_reason;

const parsed = await client.chat.completions.parse({
  model,
  messages,
  response_format: {
    type: "json_schema",
    json_schema: {
      name: "price",
      strict: true,
      schema: {
        type: "object",
        properties: { dollars: { type: "number" } },
        required: ["dollars"],
        additionalProperties: false,
      },
    },
  },
});
found.parsed = JSON.parse(parsed.choices[0].message.content);

const seen = await client.chat.completions.create({
  model,
  messages: [
    { role: "user", content: [{ type: "text", text: "What is this?" }, { type: "image_url", image_url: { url: pixel } }] },
  ],
});
found.seen = seen.usage.prompt_tokens;

found.models = [];
for await (const each of client.models.list()) found.models.push(each.id);

try {
  await client.chat.completions.create({ model: "no-such-model", messages });
} catch (error) {
  found.error = { kind: error.constructor.name, status: error.status, code: error.code };
}
try {
  await new OpenAI({ baseURL, apiKey: "wrong", maxRetries: 0 }).chat.completions.create({ model, messages });
} catch (error) {
  found.denied = { kind: error.constructor.name, status: error.status, code: error.code };
}

console.log(JSON.stringify(found));
