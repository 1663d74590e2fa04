"""Adapters of programs that say what stock mlx_lm would, and of ones that misbehave.

They have the tokens in their text and import nothing, so that a race with many of them starts in a moment.
"""

HONEST = """
import os, sys, time
PACKAGES = ("mlx-lm",)
ANSWERS = TOKENS
answers = 0

def load(folders):
    assert os.path.exists(folders["target"])

def answer(loaded, ask, tell):
    global answers
    answers += 1
    tokens = ANSWERS[tuple(ask["prompt"])][:ask["most"]]
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


def adapter(folder, kind, answers):
    """The file of a stand-in; answers: {prompt: tokens}, both tuples of ids."""
    path = folder / f"{kind}.py"
    path.write_text(HONEST.replace("TOKENS", repr(answers)).replace("MISBEHAVE", MISBEHAVIOUR[kind]))
    return path
