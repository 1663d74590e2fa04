"""One function on strings or numbers to write, and the dialogue that asks for it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from zlib import crc32

from task import Task, read_data

DATA = read_data("text_and_numbers")
WORDINGS: dict[str, list[str]] = DATA["wordings"]
OTHER_ARGUMENTS: dict[str, list[str]] = {name: new.split() for name, new in DATA["other_arguments"].items()}
KINDS = ("plain", "plain", "plain", "signed", "signed", "named")


@dataclass(frozen=True)
class Spec:
    """One function to write; `FN` in the body and examples stands for its name.

    phrase: an imperative ("count the vowels in a string"); a verb after the first is marked with `^`.
    examples: (arguments, result) pairs, both as source.
    """

    name: str
    params: str
    returns: str
    phrase: str
    body: str
    examples: tuple[tuple[str, str], ...]
    before: str = ""
    note: str = ""
    check: str = ""


Build = Callable[[Random], tuple[str, Spec]]
"""Chooses the key and the function of one task."""


def literal(value: object) -> str:
    """The value as source, in double quotes."""
    return repr(value).replace("'", '"')


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def inflect(verb: str) -> str:
    if verb.endswith(("s", "sh", "ch", "x")):
        return verb + "es"
    return verb[:-1] + "ies" if re.search("[^aeiou]y$", verb) else verb + "s"


def third_person(phrase: str) -> str:
    """Turn "keep x and sort^ it" into "keeps x and sorts it"."""
    first, _, rest = phrase.partition(" ")
    rest = re.sub(r"([a-z]+)\^", lambda match: inflect(match[1]), rest)
    return f"{inflect(first)} {rest}"


def rename_argument(rng: Random, spec: Spec) -> tuple[str, str]:
    """The parameters and the body, with another name for the first argument if one is free."""
    old = re.split(r"\W", spec.params)[0]
    used = set(re.findall(r"\w+", f"{spec.params} {spec.body} {spec.before}"))
    free = [new for new in OTHER_ARGUMENTS.get(old, ()) if new not in used]
    if not free or re.search(rf"\b{old}\b", spec.phrase.replace("^", "")):
        return spec.params, spec.body
    new = rng.choice(free)
    return re.sub(rf"\b{old}\b", new, spec.params), re.sub(rf"\b{old}\b", new, spec.body)


def source_of(name: str, params: str, body: str, spec: Spec) -> str:
    phrase = spec.phrase.replace("^", "")
    lines = [f'"""{phrase[0].upper()}{phrase[1:]}."""', *body.strip("\n").split("\n")]
    block = "\n".join(f"    {line}" if line else "" for line in lines)
    before = f"{spec.before.strip()}\n\n\n" if spec.before else ""
    return f"{before}def {name}({params}) -> {spec.returns}:\n{block}"


def check_of(spec: Spec) -> str:
    checks = [spec.check] if spec.check else []
    for args, result in spec.examples:
        is_float = re.fullmatch(r"-?\d+\.\d+", result)
        checks.append(f"assert abs(FN({args}) - {result}) < 1e-6" if is_float else f"assert FN({args}) == {result}")
    return "\n".join(checks)


def render(rng: Random, family: str, key: str, spec: Spec) -> Task:
    """Choose the user's words and the names, and write the dialogue."""
    do = spec.phrase.replace("^", "")
    does = third_person(spec.phrase)
    name, params, body = spec.name, spec.params, spec.body
    kind = rng.choice(KINDS)
    if kind != "plain" and rng.random() < 0.4:
        name = rng.choice(WORDINGS["other_names"]).format(name)
    if kind == "signed" and rng.random() < 0.4:
        params, body = rename_argument(rng, spec)
    arguments = ", ".join(re.findall(r"(\w+): ", params))
    prompt = rng.choice(WORDINGS[kind]).format(do=do, does=does, sig=f"{name}({arguments})", name=name)

    style = crc32(family.encode())  # so that a family's answers look alike
    outro = spec.note
    if not outro and style & 4 and spec.examples:
        outro = f"For example, `FN({spec.examples[0][0]})` returns `{spec.examples[0][1]}`."
    parts = (source_of(name, params, body, spec), outro, check_of(spec))
    code, outro, check = (re.sub(r"\bFN\b", name, part) for part in parts)
    intro = WORDINGS["intros"][style % 4].format(does=does)
    return Task(f"{family}/{key}" if key else family, prompt, code, intro, outro, check)
