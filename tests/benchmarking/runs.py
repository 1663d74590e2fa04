"""Runs made by hand, whose figures are known."""

import json

from mlx_ddtree.machine import machine

SETTINGS = ["mlx_lm", "dflash 4", "ddtree 8", "ddtree auto"]
HEADER = {
    "format": 1,
    "model": "tiny/model_1",
    "settings": SETTINGS,
    "max_tokens": 16,
    "cool_down": 0.0,
    "machine": machine(),
}
STAGES = {"prefill": 0.1, "draft": 0.2, "tree": 0.1, "verify": 0.6, "commit": 0.1}


def line(
    setting, seconds, *, data="gsm8k", temp=0.0, index=0, repeat=0, tokens=11, rounds=5, identical=True, repeated=0.1
):
    row = {"data": data, "temp": temp, "index": index, "digest": str(index), "repeat": repeat, "turn": 0, "turns": 1}
    row |= {"setting": setting, "tokens": tokens, "seconds": seconds, "rounds": rounds, "identical": identical}
    row |= {"repeated": repeated, "lookup_tau": 1.25, "prompt_tokens": 9, "peak_gb": 0.1}
    if setting != "mlx_lm":
        row |= {"accepted": {"1": rounds - 1, "3": 1}, "nodes": {"8": rounds}, "stages": STAGES}
    return row


def group(seconds, **options):
    """A line a setting; seconds: {setting: seconds}, the others take 1."""
    return [line(setting, seconds.get(setting, 1.0), **options) for setting in SETTINGS]


def write_run(path, groups, header=HEADER):
    rows = [header, *(line for lines in groups for line in lines)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
