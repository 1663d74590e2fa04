"""The least there is: load a pair and let it answer."""

from mlx_ddtree import generate, load

pair = load()  # the embedded pair; load("mlx-community/Qwen3-8B-4bit") finds its public drafter
messages = [{"role": "user", "content": "Write a function that counts the vowels in a string."}]
print(generate(pair, messages, max_tokens=200))
