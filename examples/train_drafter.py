"""Train a drafter for a model of your own, then decode with it.

The sizes here let it run in seconds, and what comes out hardly drafts.  For a real drafter give MODEL your model's
folder, some thousand prompts like those it will be asked, and the defaults of `mlx_ddtree.train` for hours:

    mlx_ddtree.train --model ./my-model --data prompts.jsonl --output my-drafter --minutes 600
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from mlx_ddtree import load, make_sampler, stream_generate
from mlx_ddtree.programs.train import main as train

MODEL = None  # the embedded target; or "./my-model"
TINY = "--steps 6 --layers 1 --taps 2 --block-size 8 --max-tokens 48 --batch-size 2 --anchors 8".split()
TASKS = ["adds two numbers", "reverses a string", "counts the vowels in a string", "doubles every number of a list"]

with TemporaryDirectory() as folder:
    data, drafter = Path(folder, "prompts.jsonl"), Path(folder, "my-drafter")
    rows = [{"prompt": f"Write a function that {task}."} for task in TASKS * 2]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    # The target answers the prompts, the drafter learns those answers.
    model = ["--model", MODEL] if MODEL else []
    code = train([*model, "--data", str(data), "--output", str(drafter), *TINY])
    assert code == 0

    pair = load(MODEL, str(drafter))
    messages = [{"role": "user", "content": "Write a function that multiplies two numbers."}]
    response = None
    sampler = make_sampler(0.5, seed=1)
    for response in stream_generate(pair, messages, max_tokens=60, sampler=sampler, tree_budget=8):
        print(response.text, end="", flush=True)
    assert response is not None
    print(f"\n\n{response.mean_acceptance_length:.2f} tokens a round")
