"""Training data: files -> prompts and responses in tokens, and the target's own answers.

A drafter learns what its target says, so by default the target answers every prompt first.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.generate import BatchGenerator
from mlx_lm.sample_utils import make_sampler
from mlx_lm.tokenizer_utils import TokenizerWrapper
from tqdm import tqdm

from mlx_ddtree.errors import MlxDdtreeError
from mlx_ddtree.training.loss import Batch

MAX_LENGTH = 3072
"""Tokens of a training sequence, as in the published recipe."""


class DataError(MlxDdtreeError):
    """A training file is missing, empty or malformed; the message names file and line."""


@dataclass(frozen=True)
class Example:
    """prompt_tokens may be empty (plain text); response_tokens is None until the target has answered.

    greedy: whether the response is what the target says at temperature 0; tau is measured on those.
    """

    prompt_tokens: tuple[int, ...]
    response_tokens: tuple[int, ...] | None
    source: str = ""
    greedy: bool = False

    @property
    def token_ids(self) -> tuple[int, ...]:
        return self.prompt_tokens + (self.response_tokens or ())

    @property
    def start(self) -> int:
        """Where the first block may start: the prompt's last token."""
        return max(0, len(self.prompt_tokens) - 1)


def read_examples(files: Sequence[str | Path], tokenizer: TokenizerWrapper, window: int) -> list[Example]:
    """Examples of all `files`.

    *.jsonl: rows {"prompt"}, {"messages"}, {"prompt", "response"} or {"text"}.  Any other file
    is text: responses without a prompt, cut in windows of `window` tokens.

    Raises DataError naming the file, and the line of a JSONL file.
    """
    if not files:
        raise DataError("no training data: give text or JSONL files with --data")
    examples: list[Example] = []
    for file in map(Path, files):
        text = _read_text(file)
        if file.suffix == ".jsonl":
            found = [e for row, place in _rows(text, file) for e in _from_row(row, place, tokenizer, window)]
        else:
            found = list(_windows(_encode(tokenizer, text), window, str(file)))
        if not found:
            raise DataError(f"{file} holds no training text")
        examples += found
    return examples


def _read_text(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{file} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as UTF-8 text: {error}") from None
    if not text.strip():
        raise DataError(f"{file} is empty")
    return text


def _rows(text: str, file: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """The JSON objects of a JSONL file, each with 'file:line'."""
    for number, line in enumerate(text.split("\n"), 1):
        place = f"{file}:{number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{place}: not valid JSON: {error}") from None
        if not isinstance(row, dict):
            raise DataError(f"{place}: not a JSON object")
        yield row, place


def _from_row(row: dict[str, Any], place: str, tokenizer: TokenizerWrapper, window: int) -> Iterator[Example]:
    if "messages" in row:
        messages, response = _split_messages(row["messages"], place)
    elif "prompt" in row:
        messages = [{"role": "user", "content": _string(row, "prompt", place)}]
        response = _string(row, "response", place) if "response" in row else None
    elif "text" in row:
        yield from _windows(_encode(tokenizer, _string(row, "text", place)), window, place)
        return
    else:
        raise DataError(f'{place}: a row needs "prompt", "messages" or "text"; it has {", ".join(row) or "no keys"}')
    prompt = encode_prompt(tokenizer, messages)
    answer = None if response is None else (*_encode(tokenizer, response), *sorted(tokenizer.eos_token_ids)[:1])
    yield Example(prompt, answer, place)


def _string(row: dict[str, Any], key: str, place: str) -> str:
    if not isinstance(row[key], str) or not row[key]:
        raise DataError(f'{place}: "{key}" must be a string that is not empty')
    return row[key]


def _split_messages(messages: Any, place: str) -> tuple[list[dict[str, str]], str | None]:
    """A conversation and, when the assistant has the last word, that word as the response."""
    well_formed = isinstance(messages, list) and all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in messages
    )
    if not well_formed or not messages:
        raise DataError(f'{place}: "messages" must be a list of objects with "role" and "content" strings')
    if messages[-1]["role"] != "assistant":
        return messages, None
    if len(messages) == 1:
        raise DataError(f'{place}: "messages" holds an answer without a question')
    return messages[:-1], messages[-1]["content"]


def encode_prompt(tokenizer: TokenizerWrapper, messages: list[dict[str, str]]) -> tuple[int, ...]:
    """The conversation up to where the answer starts; without a chat template, its plain text."""
    if tokenizer.has_chat_template:
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
        return tuple(int(i) for i in ids)
    return tuple(tokenizer.encode("\n".join(m["content"] for m in messages)))


def _encode(tokenizer: TokenizerWrapper, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


def _windows(tokens: Sequence[int], window: int, source: str) -> Iterator[Example]:
    for start in range(0, len(tokens), window):
        if len(piece := tokens[start : start + window]) >= 2:  # a block needs a token and a successor
            yield Example((), tuple(piece), source)


@dataclass(frozen=True)
class Answering:
    """How the target answers: one prompt of `1 / sampled_share` at `temperature`, the others greedily."""

    max_tokens: int = 256
    batch_size: int = 32
    sampled_share: float = 0.25
    temperature: float = 0.7
    seed: int = 0

    def is_sampled(self, index: int) -> bool:
        """Whether prompt `index` is sampled: evenly spread, so that a resumed run agrees."""
        return int((index + 1) * self.sampled_share) > int(index * self.sampled_share)


def regenerate(
    model: nn.Module,
    tokenizer: TokenizerWrapper,
    examples: Sequence[Example],
    file: Path,
    how: Answering,
    progress: bool = True,
) -> list[Example]:
    """Let the target answer every prompt, in batches; plain text stays as it is.

    Answers are appended to `file` as they come, as rows {"prompt_tokens", "response_tokens",
    "temperature"}; prompts that it answers already are skipped, so an interrupted run goes on.

    model: the mlx-lm model.  Returns the plain-text examples and all answered ones.
    """
    text = [e for e in examples if not e.prompt_tokens]
    prompts = [e.prompt_tokens for e in examples if e.prompt_tokens]
    file.parent.mkdir(parents=True, exist_ok=True)
    answered = Counter(e.prompt_tokens for e in read_responses(file)) if file.exists() else Counter()
    missing: list[tuple[int, tuple[int, ...]]] = []
    for index, prompt in enumerate(prompts):
        if answered[prompt] > 0:
            answered[prompt] -= 1
        elif len(prompt) + how.max_tokens <= MAX_LENGTH:
            missing.append((index, prompt))
    if too_long := len(prompts) - sum(len(p) + how.max_tokens <= MAX_LENGTH for p in prompts):
        logging.getLogger(__name__).warning("%d prompts leave no room in %d tokens: skipped", too_long, MAX_LENGTH)
    mx.random.seed(how.seed)
    bar = tqdm(total=len(prompts), initial=len(prompts) - len(missing), desc="answers", disable=not progress)
    with bar, file.open("a", encoding="utf-8") as out:
        for sampled in (False, True):
            temperature = how.temperature if sampled else 0.0
            todo = [p for i, p in missing if how.is_sampled(i) == sampled]
            for prompt, response in answer(model, tokenizer, todo, temperature, how):
                row = {"prompt_tokens": prompt, "response_tokens": response, "temperature": temperature}
                print(json.dumps(row), file=out, flush=True)
                bar.update()
    wanted = set(prompts)
    return text + [e for e in read_responses(file) if e.prompt_tokens in wanted]


def answer(
    model: nn.Module,
    tokenizer: TokenizerWrapper,
    prompts: Sequence[tuple[int, ...]],
    temperature: float,
    how: Answering,
) -> Iterator[tuple[tuple[int, ...], list[int]]]:
    """(prompt, response) as they finish; a response that ended by itself keeps its end token."""
    if not prompts:
        return
    generator = BatchGenerator(
        model,
        max_tokens=how.max_tokens,
        stop_tokens=[[t] for t in tokenizer.eos_token_ids],
        sampler=make_sampler(temperature),
        completion_batch_size=how.batch_size,
        prefill_batch_size=min(8, how.batch_size),
    )
    uids = generator.insert([list(p) for p in prompts])
    prompt_of, tokens_of = dict(zip(uids, prompts, strict=True)), {uid: [] for uid in uids}  # type: ignore[var-annotated]
    try:
        while responses := generator.next_generated():
            for response in responses:
                tokens_of[response.uid].append(int(response.token))
                if response.finish_reason is not None:
                    yield prompt_of[response.uid], tokens_of.pop(response.uid)
    finally:
        generator.close()


def read_responses(file: Path) -> list[Example]:
    """The answers in `file`.  A last line cut off by a crash is dropped from the file."""
    text = file.read_text(encoding="utf-8")
    whole, newline, rest = text.rpartition("\n")
    if rest:
        file.write_text(whole + newline, encoding="utf-8")
    examples = []
    for row, place in _rows(whole, file):
        prompt, response = row.get("prompt_tokens"), row.get("response_tokens")
        if not (_token_list(prompt) and _token_list(response)):
            raise DataError(f'{place}: a row needs "prompt_tokens" and "response_tokens", lists of whole numbers')
        examples.append(Example(tuple(prompt), tuple(response), place, greedy=row.get("temperature") == 0))
    return examples


def _token_list(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(isinstance(t, int) for t in value)


def usable(examples: Iterable[Example], max_length: int = MAX_LENGTH) -> list[Example]:
    """Those that a block can be taken from; sequences are cut at `max_length`.

    Raises DataError for a prompt without a response: nothing could be learnt from it.
    """
    kept = []
    for example in examples:
        if example.response_tokens is None:
            raise DataError(
                f'{example.source}: the row has no "response"; add one, or leave --no-regenerate out so that '
                "the target answers"
            )
        response = example.response_tokens[: max(0, max_length - len(example.prompt_tokens))]
        if len(response) >= 2:
            kept.append(replace(example, response_tokens=response))
    if not kept:
        raise DataError("no training sequence is left: every response is shorter than two tokens or past the limit")
    return kept


def split_held_out(
    examples: Sequence[Example], share: float, most: int, seed: int
) -> tuple[list[Example], list[Example]]:
    """(training, held out): a random `share`, at least one sequence and at most `most`."""
    if len(examples) < 2:
        raise DataError(f"{len(examples)} training sequence: at least two are needed, one of them to validate with")
    order = np.random.default_rng([seed, 1]).permutation(len(examples))
    count = min(most, max(1, round(share * len(examples))))
    return [examples[i] for i in sorted(order[count:])], [examples[i] for i in sorted(order[:count])]


def make_batch(examples: Sequence[Example]) -> Batch:
    """Pad sequences to the longest."""
    lengths = np.array([len(e.token_ids) for e in examples], np.int32)
    token_ids = np.zeros((len(examples), lengths.max()), np.int32)
    for row, example in zip(token_ids, examples, strict=True):
        row[: len(example.token_ids)] = example.token_ids
    return Batch(token_ids, lengths, np.array([e.start for e in examples], np.int32))


def batch_order(lengths: Sequence[int], batch_size: int, seed: int) -> Callable[[int], list[int]]:
    """A function step -> the sequences of that step's batch; every epoch has its own random order.

    Each epoch is a function of the seed alone, so a resumed run sees the batches it would have seen.
    Similar lengths share a batch (sorted within pools of 16 batches), so little padding is computed.
    """
    batch_size = min(batch_size, len(lengths))
    per_epoch = len(lengths) // batch_size
    orders: dict[int, list[list[int]]] = {}

    def epoch_batches(epoch: int) -> list[list[int]]:
        rng = np.random.default_rng([seed, 2, epoch])
        order, pool = rng.permutation(len(lengths)), 16 * batch_size
        pools = [sorted(order[i : i + pool], key=lambda j: lengths[j]) for i in range(0, len(order), pool)]
        flat = [int(i) for p in pools for i in p]
        batches = [flat[i * batch_size : (i + 1) * batch_size] for i in range(per_epoch)]
        return [batches[i] for i in rng.permutation(per_epoch)]

    def batch(step: int) -> list[int]:
        epoch, index = divmod(step, per_epoch)
        if epoch not in orders:
            orders.clear()
            orders[epoch] = epoch_batches(epoch)
        return orders[epoch][index]

    return batch
