"""Stream an answer drawn at temperature 0.7, see what each round brought, and draw the best round's tree."""

from mlx_ddtree import draw_tree, load, make_sampler, stream_generate

pair = load()
messages = [{"role": "user", "content": "Write a function that checks whether a string is a palindrome."}]

responses = []
for response in stream_generate(pair, messages, max_tokens=200, sampler=make_sampler(0.7, top_p=0.95, seed=1)):
    print(response.text, end="", flush=True)
    responses.append(response)

last = responses[-1]
print(
    f"\n\n{last.generation_tokens} tokens in {last.rounds} rounds: "
    f"{last.mean_acceptance_length:.2f} tokens a round, {last.generation_tps:.0f} tokens/s"
)
print("seconds by stage:", {stage: round(seconds, 3) for stage, seconds in last.seconds.items()})
print("rounds by kind:  ", dict(last.statistics.kinds))

best = max(responses, key=lambda response: response.acceptance_length)
print(f"\n{draw_tree(best, pair.tokenizer)}")
