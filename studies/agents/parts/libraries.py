"""OpenAI's and Anthropic's Python libraries against a server: python studies/agents/parts/libraries.py URL"""

from __future__ import annotations

import sys

import anthropic
import openai

MODEL, TEXT = "default_model", "Write hello.txt."
PARAMETERS = {"type": "object", "properties": {"command": {"type": "string"}}}
ASK = [{"role": "user", "content": TEXT}]


def chat(client: openai.OpenAI) -> None:
    tools = [{"type": "function", "function": {"name": "bash", "parameters": PARAMETERS}}]
    whole = client.chat.completions.create(model=MODEL, messages=ASK, tools=tools).choices[0].message
    with client.chat.completions.stream(model=MODEL, messages=ASK, tools=tools) as stream:
        final = stream.get_final_completion().choices[0].message
    for message in (whole, final):
        (call,) = message.tool_calls
        result = {"role": "tool", "tool_call_id": call.id, "content": "hello"}
        messages = [*ASK, message.model_dump(exclude_none=True), result]
        answer = client.chat.completions.create(model=MODEL, messages=messages, tools=tools)
        assert "says hello" in answer.choices[0].message.content


def responses(client: openai.OpenAI) -> None:
    tools = [{"type": "function", "name": "bash", "parameters": PARAMETERS, "strict": False}]
    whole = client.responses.create(model=MODEL, input=ASK, tools=tools)
    with client.responses.stream(model=MODEL, input=ASK, tools=tools) as stream:
        final = stream.get_final_response()
    for response in (whole, final):
        assert response.output_text == "I write it."
        (call,) = (item for item in response.output if item.type == "function_call")
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "hello"}
        items = [*ASK, *(item.model_dump(exclude_none=True) for item in response.output), result]
        assert "says hello" in client.responses.create(model=MODEL, input=items, tools=tools).output_text


def messages(client: anthropic.Anthropic) -> None:
    options = {"model": MODEL, "max_tokens": 500, "tools": [{"name": "bash", "input_schema": PARAMETERS}]}
    whole = client.messages.create(messages=ASK, **options)
    with client.messages.stream(messages=ASK, **options) as stream:
        final = stream.get_final_message()
    for message in (whole, final):
        assert message.stop_reason == "tool_use"
        (call,) = (block for block in message.content if block.type == "tool_use")
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "hello"}
        turns = [{"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
        answer = client.messages.create(messages=[*ASK, *turns], **options)
        assert "says hello" in answer.content[-1].text


def main() -> None:
    url = sys.argv[1]
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        chat(client)
        responses(client)
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as client:
        messages(client)
    print("chat, responses, messages: whole, streamed, tools")


if __name__ == "__main__":
    main()
