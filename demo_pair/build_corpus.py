"""Build the demo target's training text.

Usage: python build_corpus.py OUT_DIR TOKENIZER.json [--tasks N] [PACKAGE_DIR ...]

Writes token streams (uint16, documents separated by <|endoftext|>) to OUT_DIR:

  code    source files of the standard library and of every PACKAGE_DIR
  docs    dialogues "write a function ..." -> a documented function of those files
  tasks   synthetic dialogues from tasks_*.py, each executed and checked before it is kept

with one train and one heldout file each, and heldout_tasks.jsonl (prompt, answer, key), the
prompts whose key (what is asked, whatever the wording) never occurs in training.  About 5 % of
the files and of the keys are held out, by a hash of their names.
"""

import argparse
import ast
import hashlib
import json
import random
import sysconfig
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

SKIP = ("/test/", "/tests/", "/site-packages/", "/idlelib/", "/lib2to3/", "/turtledemo/", "/encodings/", "/pydoc_data/")
ASK = (
    "Write a Python function `{sig}`. {doc}",
    "Implement `{sig}` in Python. {doc}",
    "Please write `{sig}`: {doc}",
    "{doc} Write it as a Python function named `{name}`.",
)


def is_heldout(name: str) -> bool:
    return hashlib.sha256(name.encode()).digest()[0] < 13


def dialogue(prompt: str, answer: str) -> str:
    return f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"


def source_files(root: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(root.rglob("*.py")):
        relative = f"/{path.relative_to(root)}"
        if any(part in relative for part in SKIP):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if 200 < len(text) < 400_000:
            yield root.name + relative, text


def documented_functions(text: str, rng: random.Random) -> Iterator[str]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        doc = ast.get_docstring(node)
        if not doc:
            continue
        first = " ".join(doc.split("\n\n")[0].split())
        code = textwrap.dedent(ast.get_source_segment(text, node, padded=True) or "")
        if 15 < len(first) < 300 and 60 < len(code) < 2500 and ">>>" not in code:
            sig = f"{node.name}({', '.join(a.arg for a in node.args.args)})"
            ask = rng.choice(ASK).format(sig=sig, doc=first, name=node.name)
            yield dialogue(ask, f"```python\n{code.rstrip()}\n```")


def real_text(roots: list[Path], rng: random.Random) -> dict[str, list[str]]:
    parts: dict[str, list[str]] = {f"{kind}.{part}": [] for kind in ("code", "docs") for part in ("train", "heldout")}
    for root in roots:
        for name, text in source_files(root):
            part = "heldout" if is_heldout(name) else "train"
            parts[f"code.{part}"].append(text)
            parts[f"docs.{part}"].extend(documented_functions(text, rng))
    return parts


def synthetic_tasks(count: int, rng: random.Random) -> tuple[dict[str, list[str]], list[dict[str, str]]]:
    """`count` distinct dialogues, every family equally often; and the held-out ones as records."""
    modules = [import_module(path.stem) for path in sorted(Path(__file__).parent.glob("tasks_*.py"))]
    families = [family for module in modules for family in module.FAMILIES.values()]
    seen: set[str] = set()
    checked: set[str] = set()
    parts: dict[str, list[str]] = {"tasks.train": [], "tasks.heldout": []}
    heldout = []
    for i in range(count):
        task = families[i % len(families)](rng)
        if task.prompt in seen:
            continue
        seen.add(task.prompt)
        if task.code not in checked:
            task.verify()
            checked.add(task.code)
        part = "heldout" if is_heldout(task.key) else "train"
        parts[f"tasks.{part}"].append(dialogue(task.prompt, task.answer))
        if part == "heldout":
            heldout.append({"key": task.key, "prompt": task.prompt, "answer": task.answer})
    return parts, heldout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("tokenizer")
    parser.add_argument("packages", type=Path, nargs="*")
    parser.add_argument("--tasks", type=int, default=0, help="how many synthetic dialogues to draw")
    args = parser.parse_args()

    rng = random.Random(0)
    parts = real_text([Path(sysconfig.get_paths()["stdlib"]), *args.packages], rng)
    if args.tasks:
        tasks, heldout = synthetic_tasks(args.tasks, rng)
        parts |= tasks
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(args.tokenizer)
    for name, texts in parts.items():
        rng.shuffle(texts)
        ids = [i for encoding in tokenizer.encode_batch(texts) for i in (*encoding.ids, 0)]
        np.save(args.out / f"{name}.npy", np.array(ids, np.uint16))
        print(f"{name}: {len(texts)} documents, {len(ids)} tokens", flush=True)
    if args.tasks:
        rows = (json.dumps(row) + "\n" for row in heldout)
        (args.out / "heldout_tasks.jsonl").write_text("".join(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
