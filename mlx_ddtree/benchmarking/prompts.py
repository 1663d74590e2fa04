"""Benchmark prompts from JSONL files: this package's own rows, or the public data sets' own fields."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_ddtree.errors import OptionError, PromptError
from mlx_ddtree.hub.fetch import DEMO

Row = Mapping[str, Any]
HELD_OUT = "heldout"
"""The bundled prompts for the embedded pair."""
REASON = "\nPlease reason step by step, and put your final answer within \\boxed{}."


@dataclass(frozen=True)
class DataSet:
    """A public data set.

    source: arguments of `datasets.load_dataset`.
    fields: those its rows are recognised by.
    turns: from a row to what the user says, turn by turn.
    """

    source: Mapping[str, Any]
    fields: tuple[str, ...]
    turns: Callable[[Row], list[str]]


def _hub(path: str, split: str = "test", name: str | None = None) -> dict[str, Any]:
    return {"path": path, "split": split} | ({"name": name} if name else {})


def _math(row: Row) -> list[str]:
    return [row["problem"] + REASON]


def _humaneval(row: Row) -> list[str]:
    task = "Write a solution to the following problem and make sure that it passes the tests:"
    return [f"{task}\n```python\n{row['prompt']}\n```"]


def _livecodebench(row: Row) -> list[str]:
    starter = row.get("starter_code")
    rest = (
        f"Use the following starter code:\n```python\n{starter}\n```"
        if starter
        else "Read the input from stdin and write the answer to stdout."
    )
    return [f"Write a Python program that solves this problem.\n\n{row['question_content']}\n\n{rest}"]


def _alpaca(row: Row) -> list[str]:
    return [f"{row['instruction']}\n\n{row['input']}" if row.get("input") else row["instruction"]]


PUBLISHED: dict[str, DataSet] = {
    "gsm8k": DataSet(_hub("openai/gsm8k", name="main"), ("question",), lambda row: [row["question"] + REASON]),
    "math500": DataSet(_hub("HuggingFaceH4/MATH-500"), ("problem",), _math),
    "aime24": DataSet(_hub("HuggingFaceH4/aime_2024", "train"), ("problem",), _math),
    "aime25": DataSet(_hub("MathArena/aime_2025", "train"), ("problem",), _math),
    "humaneval": DataSet(_hub("openai/openai_humaneval"), ("prompt", "entry_point"), _humaneval),
    "mbpp": DataSet(
        _hub("google-research-datasets/mbpp", name="sanitized"), ("prompt", "test_list"), lambda row: [row["prompt"]]
    ),
    "livecodebench": DataSet(
        {
            "path": "json",
            "data_files": "hf://datasets/livecodebench/code_generation_lite/test.jsonl",
            "split": "train",
        },
        ("question_content",),
        _livecodebench,
    ),
    "swe-bench": DataSet(
        _hub("princeton-nlp/SWE-bench_Lite"),
        ("problem_statement",),
        lambda row: [f"Problem statement:\n{row['problem_statement']}\n\nPlease fix the issue described above."],
    ),
    "mt-bench": DataSet(
        _hub("HuggingFaceH4/mt_bench_prompts", "train"), ("prompt", "category"), lambda row: list(row["prompt"])
    ),
    "alpaca": DataSet(_hub("tatsu-lab/alpaca", "train"), ("instruction",), _alpaca),
}
"""The ten of the DDTree paper's tables, in their order here: mathematics, code, conversation."""


@dataclass(frozen=True)
class Question:
    """One row of a data set.

    data: the data set's name, with the row's kind if it has one.
    turns: what the user says; or, if raw, one text to continue.
    temp: of the row itself, or None.
    """

    data: str
    index: int
    turns: tuple[str, ...]
    raw: bool = False
    temp: float | None = None

    @property
    def digest(self) -> str:
        """Names the text, so that a run never mixes two versions of a file."""
        return hashlib.sha256(json.dumps([self.turns, self.raw]).encode()).hexdigest()[:12]


def load_questions(name: str, folder: Path, count: int | None) -> list[Question]:
    """At most `count` rows of a JSONL file, of a public data set, or of the bundled prompts.

    name: a file; one of PUBLISHED, read from `folder`/NAME.jsonl, which is fetched if it is missing; HELD_OUT.

    The rows are the first of an order drawn once, so a larger count adds rows and changes none.
    """
    path = _path(name, folder)
    lines = enumerate(path.read_text(encoding="utf-8").splitlines())
    questions = [_question(path, i, line) for i, line in lines if line.strip()]
    if not questions:
        raise PromptError(f"{path} has no prompts")
    random.Random(0).shuffle(questions)
    return sorted(questions[:count], key=lambda question: question.index)


def _path(name: str, folder: Path) -> Path:
    if name == HELD_OUT:
        return Path(str(DEMO / "heldout_prompts.jsonl"))
    if name.endswith((".jsonl", ".json")) or "/" in name:
        if not Path(name).is_file():
            raise OptionError(f"no such file: {name}")
        return Path(name)
    if name not in PUBLISHED:
        known = ", ".join([HELD_OUT, *PUBLISHED])
        raise OptionError(f"unknown data set {name!r}: give a JSONL file or one of {known}")
    path = folder / f"{name}.jsonl"
    if not path.is_file():
        fetch(name, path)
    return path


def fetch(name: str, path: Path) -> None:
    """Write the public data set's prompts to `path`, a line {"turns": [...]} a row, by the `datasets` package."""
    try:
        from datasets import load_dataset  # noqa: PLC0415 (optional, heavy)
    except ImportError:
        raise OptionError(
            f"{path} is missing: put the data set there, a JSON object a line (docs/benchmark.md has the fields), "
            "or `pip install datasets` to fetch it"
        ) from None
    try:
        rows = load_dataset(**PUBLISHED[name].source)
        lines = [json.dumps({"turns": PUBLISHED[name].turns(row)}, ensure_ascii=False) for row in rows]
    except Exception as error:  # whatever the network, the Hub or the data set's layout brings
        raise OptionError(f"could not fetch {name}: {error}; put it into {path} by hand") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    partial.replace(path)


def _question(path: Path, index: int, line: str) -> Question:
    name = HELD_OUT if path.stem == "heldout_prompts" else path.stem
    try:
        row = json.loads(line)
        turns = user_turns(name, row)
        raw = isinstance(row.get("text"), str)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PromptError(f"{path}, line {index + 1}: no prompt ({error})") from None
    if not turns or not all(isinstance(turn, str) and turn.strip() for turn in turns):
        raise PromptError(f"{path}, line {index + 1}: a turn is empty or no text")
    temp = float(row["temp"]) if row.get("temp") is not None else None
    return Question(f"{name}/{row['kind']}" if row.get("kind") else name, index, tuple(turns), raw, temp)


def user_turns(name: str, row: Row) -> Sequence[str]:
    """What the user says: {"turns": [...]}, {"text": ...} (raw), the public fields of `name`, or {"prompt": ...}.

    Raises KeyError for rows without any of them.
    """
    if "turns" in row:
        return list(row["turns"])
    known = PUBLISHED.get(name)
    if known is not None and all(field in row for field in known.fields):
        return known.turns(row)
    for key in ("text", "prompt"):
        if key in row:
            return [row[key]]
    wanted = f", or {name}'s own {', '.join(known.fields)}" if known else ""
    raise KeyError(f"give it prompt, turns or text{wanted}")
