"""Benchmark prompts from JSONL files: this package's own rows, or the public data sets' own fields."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_ddtree.errors import OptionError, PromptError
from mlx_ddtree.files.replace import replacing
from mlx_ddtree.files.rows import parse_row, read_bytes
from mlx_ddtree.hub.names import DEMO, EMBEDDED

if TYPE_CHECKING:  # a command line is read without MLX
    from mlx_lm.tokenizer_utils import TokenizerWrapper

Row = Mapping[str, Any]
HELD_OUT = "heldout"
"""The bundled prompts for the embedded pair."""
EVERYDAY = "everyday"
"""200 bundled prompts of everyday chats, none of which the drafter of SmolLM2-135M-Instruct has learnt from."""
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
    """Where a data set lies on the Hub.  name: of one of its configurations."""
    source = {"path": path, "split": split}
    if name is not None:
        source["name"] = name
    return source


def _list_of_turns(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise TypeError(f"turns are a list of texts, not {value!r:.40}")
    return value


def _math(row: Row) -> list[str]:
    return [row["problem"] + REASON]


def _humaneval(row: Row) -> list[str]:
    task = "Write a solution to the following problem and make sure that it passes the tests:"
    return [f"{task}\n```python\n{row['prompt']}\n```"]


def _livecodebench(row: Row) -> list[str]:
    starter = row.get("starter_code")
    rest = "Read the input from stdin and write the answer to stdout."
    if starter:
        rest = f"Use the following starter code:\n```python\n{starter}\n```"
    return [f"Write a Python program that solves this problem.\n\n{row['question_content']}\n\n{rest}"]


def _alpaca(row: Row) -> list[str]:
    if row.get("input"):
        return [f"{row['instruction']}\n\n{row['input']}"]
    return [row["instruction"]]


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
        _hub("HuggingFaceH4/mt_bench_prompts", "train"),
        ("prompt", "category"),
        lambda row: _list_of_turns(row["prompt"]),
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
    path = _find_file(name, folder)
    questions = []
    for index, line in enumerate(read_bytes(path, PromptError).split(b"\n")):
        if line.strip():
            place = f"{path}:{index + 1}"
            questions.append(_question(path, index, parse_row(line, place, PromptError), place))
    if not questions:
        raise PromptError(f"{path} has no prompts")
    random.Random(0).shuffle(questions)
    return sorted(questions[:count], key=lambda question: question.index)


def prompt_ids(
    tokenizer: TokenizerWrapper, question: Question, messages: Sequence[Row], template: Mapping[str, Any]
) -> list[int]:
    """A conversation as tokens, in the chat template where there is one and the question does not continue a text.

    template: options of the chat template.
    """
    if question.raw or not tokenizer.has_chat_template:
        return list(tokenizer.encode("\n\n".join(message["content"] for message in messages)))
    return list(tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, **template))


def _find_file(name: str, folder: Path) -> Path:
    if name == HELD_OUT:
        return DEMO / "heldout_prompts.jsonl"
    if name == EVERYDAY:
        return EMBEDDED / "everyday.jsonl"
    if name.endswith((".jsonl", ".json")) or "/" in name:
        if not Path(name).is_file():
            raise OptionError(f"no such file: {name}")
        return Path(name)
    if name not in PUBLISHED:
        known = ", ".join([HELD_OUT, EVERYDAY, *PUBLISHED])
        raise OptionError(f"unknown data set {name!r}: give a JSONL file or one of {known}")
    path = folder / f"{name}.jsonl"
    if not path.is_file():
        fetch_data_set(name, path)
    return path


def fetch_data_set(name: str, path: Path) -> None:
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
    with replacing(path) as file:
        file.write(("\n".join(lines) + "\n").encode("utf-8"))


def _question(path: Path, index: int, row: Row, place: str) -> Question:
    """index: of the row's line, from 0.  place: what a message about the row begins with.  Raises PromptError."""
    name = HELD_OUT if path.stem == "heldout_prompts" else path.stem
    try:
        turns = user_turns(name, row)
    except KeyError as error:
        raise PromptError(f"{place}: no prompt: {error.args[0]}") from None
    except TypeError as error:
        raise PromptError(f"{place}: no prompt: {error}") from None
    if not turns or not all(isinstance(turn, str) and turn.strip() for turn in turns):
        raise PromptError(f"{place}: a turn is empty or no text")
    kind = row.get("kind") or None
    if kind is not None and not isinstance(kind, str):
        raise PromptError(f'{place}: "kind" must be a string, it is {kind!r}')
    data = name if kind is None else f"{name}/{kind}"
    is_raw = isinstance(row.get("text"), str)
    return Question(data, index, tuple(turns), is_raw, _temperature(row, place))


def _temperature(row: Row, place: str) -> float | None:
    """The row's own temperature, or None."""
    temp = row.get("temp")
    if temp is None:
        return None
    if isinstance(temp, bool) or not isinstance(temp, int | float) or not 0 <= temp < math.inf:
        raise PromptError(f'{place}: "temp" must be a number, 0 or larger; it is {temp!r}')
    return float(temp)


def user_turns(name: str, row: Row) -> Sequence[str]:
    """What the user says: {"turns": [...]}, {"text": ...} (raw), the public fields of `name`, or {"prompt": ...}.

    Raises KeyError for rows without any of them, TypeError for one that is no text.
    """
    if "turns" in row:
        return _list_of_turns(row["turns"])
    known = PUBLISHED.get(name)
    if known is not None and all(field in row for field in known.fields):
        return known.turns(row)
    for key in ("text", "prompt"):
        if key in row:
            return [row[key]]
    wanted = f", or {name}'s own {', '.join(known.fields)}" if known else ""
    raise KeyError(f"give it prompt, turns or text{wanted}")
