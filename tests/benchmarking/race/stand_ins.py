"""Adapters of programs that decode with stock mlx_lm, and of ones that misbehave."""

HONEST = """
import os, sys, time
PACKAGES = ("mlx-lm",)
answers = 0

def load(folders):
    import mlx_lm
    return mlx_lm.load(folders["target"])

def tokens_of(loaded, ask):
    from mlx_lm import stream_generate
    model, tokenizer = loaded
    return [r.token for r in stream_generate(model, tokenizer, ask["prompt"], max_tokens=ask["most"])]

def answer(loaded, ask, tell):
    global answers
    answers += 1
    tokens = tokens_of(loaded, ask)
    tell(tokens[:1])
    time.sleep(0.001)
    tell(tokens[1:])
    MISBEHAVE
"""
"""Two rounds an answer, all tokens but the first in the second; `MISBEHAVE` is a line that comes last."""

MISBEHAVIOUR = {
    "honest": "",
    "talks": 'print("loading... {}"); os.write(1, b"not a reply\\n")',
    "lies": 'return {"tokens": [token + 1 for token in tokens]}',
    "overshoots": 'return {"tokens": tokens + [5, 6, 7]}',
    "crashes": 'if answers > 2: print("out of luck", file=sys.stderr, flush=True); os._exit(3)',
    "raises": 'raise ValueError("a tensor\\nis too wide")',
    "hangs": "time.sleep(600 if answers > 2 else 0)",
    "babbles": 'return {"first": "soon"}',
}
"""Warm-up is two answers: who crashes or hangs does so in the race itself."""


def adapter(folder, kind):
    """The file of a stand-in."""
    path = folder / f"{kind}.py"
    path.write_text(HONEST.replace("MISBEHAVE", MISBEHAVIOUR[kind]))
    return path
