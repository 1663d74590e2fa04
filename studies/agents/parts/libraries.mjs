// OpenAI's and Anthropic's npm libraries against a server: node studies/agents/parts/libraries.mjs URL
// Run it from a folder whose node_modules has `openai` and `@anthropic-ai/sdk`.
import { createRequire } from "node:module";
import assert from "node:assert";
import { pathToFileURL } from "node:url";

const near = createRequire(pathToFileURL(process.env.NODE_MODULES_FOLDER || process.cwd()) + "/");
const OpenAI = near("openai").default;
const Anthropic = near("@anthropic-ai/sdk").default;
const url = process.argv[2];
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: url, apiKey: "none", maxRetries: 0 });
const model = "default_model";
const parameters = { type: "object", properties: { command: { type: "string" } } };
const text = "Write hello.txt.";

async function chat() {
  const ask = { model, messages: [{ role: "user", content: text }] };
  ask.tools = [{ type: "function", function: { name: "bash", parameters } }];
  const whole = (await openai.chat.completions.create(ask)).choices[0].message;
  const final = await openai.chat.completions.stream(ask).finalMessage();
  for (const message of [whole, final]) {
    const [call] = message.tool_calls;
    assert.equal(call.function.name, "bash");
    const result = { role: "tool", tool_call_id: call.id, content: "hello" };
    const answer = await openai.chat.completions.create({ ...ask, messages: [...ask.messages, message, result] });
    assert.match(answer.choices[0].message.content, /says hello/);
  }
}

async function responses() {
  const ask = { model, input: [{ role: "user", content: text }] };
  ask.tools = [{ type: "function", name: "bash", parameters, strict: false }];
  const whole = await openai.responses.create(ask);
  const final = await openai.responses.stream(ask).finalResponse();
  for (const response of [whole, final]) {
    assert.equal(response.status, "completed");
    assert.equal(response.output_text, "I write it.");
    const call = response.output.find((item) => item.type === "function_call");
    const result = { type: "function_call_output", call_id: call.call_id, output: "hello" };
    const answer = await openai.responses.create({ ...ask, input: [...ask.input, ...response.output, result] });
    assert.match(answer.output_text, /says hello/);
  }
  await assert.rejects(openai.responses.create({ ...ask, previous_response_id: "resp_1" }), /answers are not kept/);
}

async function messages() {
  const ask = { model, max_tokens: 500, messages: [{ role: "user", content: text }] };
  ask.tools = [{ name: "bash", input_schema: parameters }];
  const whole = await anthropic.messages.create(ask);
  const final = await anthropic.messages.stream(ask).finalMessage();
  for (const message of [whole, final]) {
    assert.equal(message.stop_reason, "tool_use");
    const call = message.content.find((block) => block.type === "tool_use");
    const result = { type: "tool_result", tool_use_id: call.id, content: "hello" };
    const turns = [{ role: "assistant", content: message.content }, { role: "user", content: [result] }];
    const answer = await anthropic.messages.create({ ...ask, messages: [...ask.messages, ...turns] });
    assert.match(answer.content.at(-1).text, /says hello/);
  }
  assert((await anthropic.messages.countTokens({ model, messages: ask.messages })).input_tokens > 0);
}

for (const part of [chat, responses, messages]) await part();
console.log("chat, responses, messages: whole, streamed, tools");
