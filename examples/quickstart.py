"""Load a pair, stream an answer, and see how many tokens each round brought."""

from mlx_ddtree import load, stream_generate

pair = load()  # the embedded pair; load("mlx-community/Qwen3-8B-4bit") finds its public drafter
messages = [{"role": "user", "content": "Write a function that counts the vowels in a string."}]

response = None
for response in stream_generate(pair, messages, max_tokens=200):
    print(response.text, end="", flush=True)

assert response is not None
print(
    f"\n\n{response.generation_tokens} tokens in {response.rounds} rounds: "
    f"{response.mean_acceptance_length:.2f} tokens a round, {response.generation_tps:.0f} tokens/s"
)
