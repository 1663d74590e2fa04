"""What drafting is worth under a grammar: JSON answers by plain decoding with a mask, and with drafts.

All ways answer the same prompts in turns, within one process.  Per form it prints, for every way, tokens a second as a
ratio to plain decoding under the same mask (the median over prompts), the same by processor time (geometric mean), which
says more where other programs run beside it and nothing of a GPU, tokens a verification, and how many texts were the same.
`free` is the same model without a form: what it says is another text, so only its speed can be compared.

    python studies/grammar/json_speed.py --count 8
    python studies/grammar/json_speed.py --model pypi/SmolLM2-135M-Instruct --count 4 --ways free-ar ar ddtree-8 auto
"""

import argparse
from dataclasses import dataclass, field
from time import perf_counter, process_time

import numpy as np

from mlx_ddtree import Grammar, load, stream_generate
from mlx_ddtree.generation.grammars import open_walk

TEXT = {"type": "string", "maxLength": 40}
FUNCTION = {
    "type": "object",
    "properties": {
        "function_name": TEXT,
        "description": TEXT,
        "return_type": {"enum": ["int", "str", "bool", "float", "list", "dict", "None"]},
        "number_of_arguments": {"type": "integer", "minimum": 0, "maximum": 9},
        "has_side_effects": {"type": "boolean"},
        "difficulty": {"enum": ["easy", "medium", "hard"]},
    },
    "additionalProperties": False,
}
FUNCTION["required"] = list(FUNCTION["properties"])
FORMS = {
    "record": Grammar.json_schema(FUNCTION),
    "list": Grammar.json_schema(
        {
            "type": "array",
            "minItems": 3,
            "maxItems": 3,
            "items": {
                "type": "object",
                "properties": {
                    "argument": TEXT,
                    "type": {"enum": ["int", "str", "list"]},
                    "optional": {"type": "boolean"},
                },
                "required": ["argument", "type", "optional"],
                "additionalProperties": False,
            },
        }
    ),
    "any object": Grammar.json_object(),
}
TASKS = [
    "counts the vowels of a text",
    "checks whether a number is prime",
    "reverses a string",
    "returns the largest element of a list",
    "computes the factorial of a number",
    "removes duplicates from a list",
    "merges two sorted lists",
    "checks whether a word is a palindrome",
]
QUESTION = "Write a function that {}."
WAYS = {
    "free-ar": {"method": "ar"},
    "free-auto": {},
    "ar": {"method": "ar"},
    "dflash-8": {"method": "dflash", "block_size": 8},
    "ddtree-8": {"tree_budget": 8, "block_size": 8},
    "ddtree-16": {"tree_budget": 16},
    "auto": {},
}
"""Ways whose names begin with `free` follow no form."""


@dataclass
class Score:
    """One way's answers to one form, by prompt."""

    speeds: list[float] = field(default_factory=list)
    processor_speeds: list[float] = field(default_factory=list)
    texts: list[tuple[int, ...]] = field(default_factory=list)
    rounds: int = 0
    tokens: int = 0


def answer(pair, prompt, form, how, limit, score):
    """Answer once, and note it."""
    started, worked = perf_counter(), process_time()
    tokens = []
    for response in stream_generate(pair, prompt, limit, grammar=form, **how):
        if not tokens:
            started, worked = perf_counter(), process_time()  # as mlx-lm: from the first token on
        tokens += response.tokens
    score.speeds.append((len(tokens) - 1) / (perf_counter() - started))
    score.processor_speeds.append((len(tokens) - 1) / (process_time() - worked))
    score.texts.append(tuple(tokens))
    score.rounds += response.rounds
    score.tokens += len(tokens) - 1


def forced_share(pair, form, text):
    """Of an answer's tokens, those that could not have been others."""
    walk = open_walk(pair, form, [])
    forced = 0
    for place, token in enumerate(text):
        walk.stand(text[:place])
        forced += walk.place().only == token
    return forced / len(text)


def geometric(ratios):
    return float(np.exp(np.mean(np.log(ratios))))


def study(pair, name, form, ways, tasks, limit, repeats):
    """One form's table."""
    scores = {way: Score() for way in ways}
    for _ in range(repeats):
        for task in tasks:
            prompt = [{"role": "user", "content": QUESTION.format(task)}]
            for way in ways:  # in turns, so that what else the machine does meets all of them
                answer(pair, prompt, None if way.startswith("free") else form, WAYS[way], limit, scores[way])
    plain = scores["ar"]
    share = np.mean([forced_share(pair, form, text) for text in plain.texts[: len(tasks)]])
    length = np.mean([len(text) for text in plain.texts])
    print(f"\n{name}: {length:.0f} tokens an answer, {share:.0%} of them forced")
    print("way        speedup  by processor time  tokens a verification  identical")
    for way, score in scores.items():
        speedup = np.median(np.divide(score.speeds, plain.speeds))
        worked = geometric(np.divide(score.processor_speeds, plain.processor_speeds))
        per_round = score.tokens / score.rounds
        same = (
            "-" if way.startswith("free") else f"{sum(map(tuple.__eq__, score.texts, plain.texts))}/{len(plain.texts)}"
        )
        print(f"{way:9}  {speedup:6.2f}x  {worked:16.2f}x  {per_round:21.2f}  {same:>9}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="target (default: the embedded pair)")
    parser.add_argument("--draft-model")
    parser.add_argument("--count", type=int, default=8, help="prompts")
    parser.add_argument("--max-tokens", type=int, default=120)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    args = parser.parse_args()
    ways = args.ways if "ar" in args.ways else ["ar", *args.ways]
    pair = load(args.model, args.draft_model)
    warm = Score()
    for way in ways:  # measures the pair, and brings everything into memory
        answer(pair, "def f(", FORMS["record"], WAYS[way], 12, warm)
    for name in args.forms:
        study(pair, name, FORMS[name], ways, TASKS[: args.count], args.max_tokens, args.repeats)


if __name__ == "__main__":
    main()
