"""A target on all machines that mlx.launch has started; without it, on this one.

mlx.launch -n 2 --backend ring -- python examples/several_machines.py           # two processes on this machine
mlx.launch --hostfile hosts.json -- python examples/several_machines.py         # docs/distributed.md has the file
"""

from mlx_ddtree import generate, load

pair = load()  # only the first process gets past this line
print(f"machines: {pair.target.shards}")
messages = [{"role": "user", "content": "Write a function that counts the vowels in a string."}]
print(generate(pair, messages, max_tokens=200))
