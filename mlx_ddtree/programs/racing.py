"""The work of mlx_ddtree.benchmark race: this package and others on the same prompts, in turns."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlx_ddtree import terminal
from mlx_ddtree.benchmarking.bench import SEED
from mlx_ddtree.benchmarking.prompts import Question, load_questions, prompt_ids
from mlx_ddtree.benchmarking.race.entrants import make_entrants
from mlx_ddtree.benchmarking.race.folders import Folders, make_folders
from mlx_ddtree.benchmarking.race.record import RaceRecord, Turn
from mlx_ddtree.benchmarking.race.standings import Standing, standings_of, table_of
from mlx_ddtree.benchmarking.race.turns import Race, Rules, row_of_turn
from mlx_ddtree.benchmarking.settings import STOCK
from mlx_ddtree.errors import OptionError
from mlx_ddtree.hub.load_target import read_tokenizer
from mlx_ddtree.machine import describe, machine
from mlx_ddtree.untrusted import read_json


def race(args: argparse.Namespace) -> int:
    """Let all answer in turns, and print how they stand."""
    questions = [question for name in args.data for question in load_questions(name, Path("data"), args.count)]
    with tempfile.TemporaryDirectory(prefix="race-") as into:
        folders = make_folders(Path(into), args.model, args.draft_model, args.revision, args.draft_revision)
        standings, versions = _run(args, questions, folders)
    _show(args, standings, versions)
    return 0


def _run(
    args: argparse.Namespace, questions: list[Question], folders: Folders
) -> tuple[list[Standing], dict[str, str]]:
    """Every turn that is missing; returns the standings, and the programs' versions."""
    entrants = make_entrants(folders.block_size, args.peer, args.entrants)
    names = [entrant.name for entrant in entrants]
    tokenizer = read_tokenizer(folders.target, False, read_json(folders.target / "config.json").get("eos_token_id"))
    prompts = {}
    for question in questions:
        messages = [{"role": "user", "content": question.turns[0]}]
        prompts[question.digest] = prompt_ids(tokenizer, question, messages, args.chat_template_args)
    rules = Rules(args.max_tokens, args.temp, sorted(tokenizer.eos_token_ids), args.limit, args.threads)
    turns = [(question, repeat) for repeat in range(args.repeats) for question in questions]
    with RaceRecord(args.output, _header(args, names)) as record, Race(entrants, folders, rules, _say) as running:
        missing = [turn for turn in turns if not record.has(turn[0].digest, turn[1])]
        if missing:
            _say("warming up")
            running.warm_up(prompts[missing[0][0].digest])
        for place, (question, repeat) in enumerate(missing):
            number = turns.index((question, repeat))
            replies = running.turn(prompts[question.digest], number, SEED + repeat)
            kind = question.data.partition("/")[2]
            turn = Turn(question.digest, kind, repeat, row_of_turn(replies, rules))
            record.append(turn)
            _say(f"{place + 1}/{len(missing)} {kind} {_progress(names, turn)}")
        return standings_of(names, record.turns, running.failures), running.versions


def _header(args: argparse.Namespace, names: list[str]) -> dict[str, Any]:
    """What must be as it was when a race goes on; prompts and repeats may be added."""
    return {
        "race": 1,
        "model": args.model or "embedded",
        "drafter": args.draft_model,
        "entrants": names,
        "tokens": args.max_tokens,
        "temp": args.temp,
        "threads": args.threads,
        "template": args.chat_template_args,
        "machine": machine(),
    }


def _progress(names: list[str], turn: Turn) -> str:
    """One turn in one line: stock's tokens a second, the others' ratios."""
    [stock] = standings_of([STOCK], [turn], {})
    answer = turn.answers[STOCK]
    if stock.ratio is None:
        return "too short to be timed"
    parts = [f"{STOCK} {(answer['tokens'] - 1) / (answer['seconds'] - answer['first']):.0f} tok/s"]
    for standing in standings_of(names, [turn], {}):
        if standing.ratio is not None and standing.name != STOCK:
            parts.append(f"{standing.name} {standing.ratio:.2f}")
    return ", ".join(parts)


def _show(args: argparse.Namespace, standings: list[Standing], versions: dict[str, str]) -> None:
    facts = machine()
    if args.json:
        named = {key: getattr(args, key) for key in ("model", "draft_model", "temp", "repeats", "threads")}
        named["tokens"] = args.max_tokens
        rows = [asdict(standing) for standing in standings]
        print(json.dumps(named | {"machine": facts, "versions": versions, "standings": rows}))
        return
    print(f"{args.model or 'embedded'}; {describe(facts)}")
    print(
        f"{standings[0].prompts} prompts, {args.max_tokens} tokens, temperature {args.temp:g}; ratios to stock mlx_lm\n"
    )
    rows = table_of(standings)
    if not rows:
        raise OptionError("no answer was long enough to be timed: raise --max-tokens, or give other --data")
    terminal.print_table(rows)
    print()
    for name, text in versions.items():
        print(f"{name}: {text}")
    for standing in standings:
        if standing.failure is not None:
            print(f"{standing.name} is out: {standing.failure}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
