"""Start the server and talk to it with the openai package, as any program for OpenAI's interface does.

pip install ".[server]" openai      (in mlx_ddtree's folder)
"""

import socket
import subprocess
import sys
import time

from openai import APIConnectionError, OpenAI

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]

server = subprocess.Popen([sys.executable, "-m", "mlx_ddtree.server", "--port", str(port)])  # the embedded pair
try:
    client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
    while True:
        try:
            model = client.models.list().data[0].id
            break
        except APIConnectionError:  # it is still loading
            if server.poll() is not None:
                sys.exit("the server did not start")
            time.sleep(0.2)
    print(f"model: {model}")

    messages = [{"role": "user", "content": "Write a function that reverses a string."}]
    answer = client.chat.completions.create(model=model, messages=messages, max_tokens=100, temperature=0)
    print(answer.choices[0].message.content)
    print(f"\n{answer.usage.completion_tokens} tokens\n")

    for chunk in client.chat.completions.create(
        model=model, messages=messages, max_tokens=100, temperature=0.7, seed=1, stream=True
    ):
        if chunk.choices:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()
finally:
    server.terminate()
    server.wait(30)
