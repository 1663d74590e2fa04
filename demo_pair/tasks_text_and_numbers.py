"""Families of small tasks on strings, numbers and mathematics.

Parametric families are functions of text_families.py and number_families.py.  A classic is a block of tasks/classics.txt:
its signature, its phrase, examples "arguments => result", perhaps a note (">") and an import ("@"), then the body.
"""

import re
from random import Random

import number_families as numbers
import text_families as text
from spec import Build, Spec, render
from task import Family, Task, read_blocks

PARAMETRIC: dict[str, Build] = {
    "numbers_in_list": numbers.numbers_where("list"),
    "numbers_up_to": numbers.numbers_where("up_to"),
    "numbers_between": numbers.numbers_where("between"),
    "filter_numbers": numbers.filter_numbers,
    "characters": text.characters,
    "words_where": text.words_where,
    "unit_conversion": numbers.unit_conversion,
    "temperature": numbers.temperature,
    "shape": numbers.shape,
    "digits": numbers.digits,
    "divisible": numbers.divisible,
    "sequence": numbers.sequence,
    "two_steps": numbers.two_steps,
    "text_pipeline": text.text_pipeline,
    "separators": text.separators,
    "letter_case": text.letter_case,
    "padding": text.padding,
    "string_slice": text.string_slice,
    "base_conversion": numbers.base_conversion,
    "fizzbuzz": numbers.fizzbuzz,
    "dice": numbers.dice,
    "percent": numbers.percent,
    "between_limits": numbers.between_limits,
    "rounding": numbers.rounding,
    "caesar_by": text.caesar,
    "bits": numbers.bits,
    "password_length": text.validate_length,
}


def parse_classic(block: str) -> Spec:
    signature, phrase, *rest = block.strip("\n").split("\n")
    match = re.fullmatch(r"(\w+)\((.*)\) -> (.+)", signature)
    assert match, signature
    name, params, returns = match.groups()
    examples: list[tuple[str, str]] = []
    body: list[str] = []
    before = note = ""
    for line in rest:
        if line.startswith("@ "):
            before = line[2:]
        elif line.startswith("> "):
            note = line[2:]
        elif " => " in line and not body:
            arguments, result = line.split(" => ")
            examples.append((arguments, result))
        else:
            body.append(line)
    return Spec(name, params, returns, phrase, "\n".join(body), tuple(examples), before, note)


def parametric(family: str, build: Build) -> Family:
    def make(rng: Random) -> Task:
        return render(rng, family, *build(rng))

    return make


def classic(spec: Spec) -> Family:
    return lambda rng: render(rng, spec.name, "", spec)


CLASSICS = [parse_classic(block) for block in read_blocks("classics", "\n\n")]
FAMILIES: dict[str, Family] = {name: parametric(name, build) for name, build in PARAMETRIC.items()}
FAMILIES |= {spec.name: classic(spec) for spec in CLASSICS}
