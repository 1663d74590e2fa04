"""Families of small programs: classes, files, iterators, dates, errors and classic exercises.

tasks/programs.toml has the families.  <<column>> in a template is filled from a row of the family's table; a family's
parameters may also be chosen by a function of this file (CHOOSERS).
"""

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any
from zlib import crc32

from task import Family, Row, Task, read_data

Chooser = Callable[[Random], Row]

DATA = read_data("programs")
WORDINGS: dict[str, list[str]] = DATA["wordings"]
ENTITIES: dict[str, str] = DATA["entities"]
SAMPLES: dict[str, str] = DATA["samples"]
CHOSEN: dict[str, list[str]] = DATA["chosen"]
EXTRAS: dict[str, dict[str, str]] = DATA["extras"]
REGEX: dict[str, dict[str, str]] = DATA["regex"]
LONGEST_LINE = 84


def fill(template: str, row: Row) -> str:
    """Replace every <<column>> of the template; "¦" in a column stands for "|"."""
    return re.sub(r"<<(\w+)>>", lambda match: row[match[1]].replace("¦", "|"), template)


def base_form(phrase: str) -> str:
    """Turn "returns x" into "return x"."""
    verb, _, rest = phrase.partition(" ")
    rest = re.sub(r"\band (then )?(return|close)s\b", r"and \1\2", rest)
    if verb == "caches":
        verb = "cache"
    elif verb.endswith(("sses", "ches", "shes", "xes")):
        verb = verb[:-2]
    elif verb.endswith("ies"):
        verb = verb[:-3] + "y"
    elif verb.endswith("s"):
        verb = verb[:-1]
    return f"{verb} {rest}"


def signature(code: str, name: str) -> str:
    """Return "name(a, b)" for the function called name."""
    for node in ast.parse(code).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            args = node.args
            names = [a.arg for a in args.args]
            if args.vararg:
                names.append("*" + args.vararg.arg)
            if args.kwarg:
                names.append("**" + args.kwarg.arg)
            return f"{name}({', '.join(names)})"
    return name


def rename(text: str, old: str, new: str) -> str:
    """Rename the function or class, leaving the prose of docstrings alone."""
    pattern = rf"\b{old}\b" if old[0].isupper() else rf"(?<![\w.]){old}(?=[(,)])|(?<=@){old}\b"
    return re.sub(pattern, new, text)


# ---------------------------------------------------------------- choosers of parameters


def entity(rng: Random) -> Row:
    """Choose a class and two to four of its fields, and render the pieces templates use."""
    name = rng.choice(list(ENTITIES))
    fields = [field.split(":") for field in ENTITIES[name].split()]
    size = rng.randint(2, min(4, len(fields)))
    fields = [fields[i] for i in sorted(rng.sample(range(len(fields)), size))]
    numbers = [f for f, t in fields if t in ("int", "float")]
    if not numbers:
        return entity(rng)
    number = numbers[0]
    names = [f for f, _ in fields]
    values = [SAMPLES[t] for _, t in fields]
    valued = list(zip(names, values, strict=True))
    noun = name.lower()
    a = "an" if noun[0] in "aeio" else "a"
    return {
        "key": f"{noun}/{'-'.join(names)}",
        "N": name,
        "noun": noun,
        "num": number,
        "numval": values[names.index(number)],
        "a": a,
        "list": ", ".join(names[:-1]) + " and " + names[-1],
        "attrs": "\n".join(f"    {f}: {t}" for f, t in fields),
        "params": ", ".join(f"{f}: {t}" for f, t in fields),
        "sets": "\n".join(f"        self.{f} = {f}" for f in names),
        "selfs": ", ".join(f"self.{f}" for f in names),
        "others": ", ".join(f"other.{f}" for f in names),
        "reprs": ", ".join(f"{{self.{f}!r}}" for f in names),
        "dict": "{" + ", ".join(f'"{f}": self.{f}' for f in names) + "}",
        "gets": ", ".join(f'data["{f}"]' for f in names),
        "vals": ", ".join(values),
        "bad": ", ".join("-1" if f == number else v for f, v in valued),
        "big": ", ".join("99" if f == number else v for f, v in valued),
        "data": "{" + ", ".join(f'"{f}": {v}' for f, v in valued) + "}",
        "doc": f"Represent {a} {noun}.",
        "first": names[0],
        "firstval": values[0],
    }


def fitting_entity(code: str) -> Chooser:
    """An entity chooser whose code has no line over 84 characters."""

    def choose(rng: Random) -> Row:
        row = entity(rng)
        while max(map(len, fill(code, row).splitlines())) > LONGEST_LINE:
            row = entity(rng)
        return row

    return choose


def shape(rng: Random) -> Row:
    """Choose a shape and whether it offers the area, the perimeter or both, as what."""
    name, fields, area, perimeter, args, value, length = rng.choice(CHOSEN["shapes"]).split("|")
    parts = rng.choice((("area",), ("perimeter",), ("area", "perimeter")))
    kind = ("method", "property")[rng.randint(0, 1)]
    formula = {"area": area, "perimeter": perimeter}
    result = {"area": value, "perimeter": length}
    decorator = "    @property\n" if kind == "property" else ""
    call = "" if kind == "property" else "()"
    methods = ""
    for part in parts:
        half = "        s = (self.a + self.b + self.c) / 2\n" if name == "Triangle" and part == "area" else ""
        methods += f'\n{decorator}    def {part}(self) -> float:\n        """Return the {part}."""\n'
        methods += f"{half}        return {formula[part]}\n"
    checks = [f"assert math.isclose({name}({args}).{part}{call}, {result[part]})" for part in parts]
    several = {"method": "methods", "property": "properties"}
    return {
        "key": f"{name.lower()}/{'-'.join(parts)}/{kind}",
        "N": name,
        "noun": name.lower(),
        "math": ("import math\n" if "math." in methods else "") + "from dataclasses import dataclass",
        "fields": "\n".join(f"    {f}: float" for f in fields.split()),
        "methods": methods.rstrip(),
        "what": " and ".join(parts) + " " + (kind if len(parts) == 1 else several[kind]),
        "the": "an" if parts[0] == "area" else "a",
        "check": "\n".join(["import math", *checks]),
    }


def collection(rng: Random) -> Row:
    """Choose a collection of strings and one or two abilities."""
    name, item, items, noun = rng.choice(CHOSEN["collections"]).split("|")
    picked = sorted(rng.sample(list(EXTRAS), rng.randint(1, 2)), key=list(EXTRAS).index)
    row = {"N": name, "item": item, "items": items, "noun": noun, "key": f"{name.lower()}/{'-'.join(picked)}"}
    row["what"] = " and ".join(EXTRAS[p]["what"] for p in picked)
    row["methods"] = "\n\n".join(fill(EXTRAS[p]["method"], row) for p in picked)
    changing = [p for p in picked if p in ("remove", "clear")]  # checked last, and only one of them
    order = [p for p in picked if p not in changing] + changing[:1]
    row["check"] = "\n".join(fill(EXTRAS[p]["check"], row) for p in order)
    row["imports"] = "from collections.abc import Iterator\n\n\n" if "iter" in picked else ""
    return row


def options(rng: Random) -> Row:
    """Choose one to three command line options."""
    known = CHOSEN["options"]
    picked = [known[i].split(":") for i in sorted(rng.sample(range(len(known)), rng.randint(1, 3)))]
    typed = [(name, type_, f'"{value}"' if type_ == "str" else value) for name, type_, value in picked]
    return {
        "key": "-".join(name for name, _, _ in picked),
        "list": " and ".join(f"--{name} ({type_}, default {value})" for name, type_, value in picked),
        "lines": "\n".join(f'    parser.add_argument("--{n}", type={t}, default={v})' for n, t, v in typed),
        "check": "\n".join(f"assert parse_args([]).{name} == {value}" for name, _, value in typed),
    }


def fizzbuzz(rng: Random) -> Row:
    """Choose the divisors and words."""
    a, b = rng.choice([(2, 3), (3, 5), (3, 4), (2, 5), (2, 7), (3, 7), (4, 5), (5, 7)])
    words = ("Fizz Buzz", "Foo Bar", "Ping Pong", "Tick Tock", "Red Blue", "Hot Dog")
    x, y = rng.choice(words).split()
    return {"key": f"{a}{x}{b}{y}", "a": str(a), "b": str(b), "x": x, "y": y, "ab": str(a * b), "low": (x + y).lower()}


def regex(rng: Random) -> Row:
    """Choose a pattern and what to do with it."""
    name, noun, pattern, example = rng.choice(CHOSEN["patterns"]).split("|")
    verb = rng.choice(list(REGEX))
    use = REGEX[verb]
    row = {"key": f"{verb}/{name}", "id": f"{verb}_{name}", "noun": noun, "ex": example, "type": use["type"]}
    row["expr"] = use["expr"].replace("PATTERN", f'r"{pattern}"')
    return row | {part: fill(use[part], row) for part in ("what", "doc", "res")}


CHOOSERS: dict[str, Chooser] = {
    "shape": shape,
    "collection": collection,
    "options": options,
    "fizzbuzz": fizzbuzz,
    "regex": regex,
}

# ---------------------------------------------------------------- from templates to families


def table_of(template: dict[str, Any]) -> list[Row]:
    """A family's rows: its own, a shared table's, or one without columns."""
    table = DATA["tables"][template["table"]] if "table" in template else template
    if "rows" not in table:
        return [{}]
    columns = table["columns"].split()
    rows = [dict(zip(columns, row.split("|"), strict=True)) for row in table["rows"]]
    return [{"key": row[columns[0]], **row} for row in rows]


def chooser_of(template: dict[str, Any]) -> Chooser:
    if "choose" not in template:
        table = table_of(template)
        return lambda rng: rng.choice(table)
    if template["choose"] == "fitting_entity":
        return fitting_entity(template["code"])
    return CHOOSERS[template["choose"]]


@dataclass
class Wanted:
    """What a family's row asks for, before the user's words are chosen."""

    kind: str
    phrase: str
    source: str
    test: str

    def __post_init__(self) -> None:
        names = re.findall(r"^(?:async )?(?:def|class) (\w+)", self.source, re.M)
        self.name: str = names[-1] if names else re.findall(r"^(\w+) =", self.source, re.M)[-1]
        verb_or_article = self.phrase.split()[0]
        class_like = self.name[0].isupper() and not verb_or_article.endswith("s")
        self.is_class = class_like or verb_or_article in ("a", "an", "the")

    def ask(self, rng: Random) -> str:
        """The user's words; the name may become another one."""
        if rng.random() < 0.35:
            wording = rng.choice(WORDINGS["named_class_asks" if self.is_class else "named_asks"])
            if rng.random() < 0.6:
                aliases = WORDINGS["class_aliases" if self.name[0].isupper() else "aliases"]
                new = rng.choice(aliases).format(self.name)
                self.source = rename(self.source, self.name, new)
                self.test = rename(self.test, self.name, new)
                self.name = new
        else:
            wording = rng.choice(self.plain_wordings())
        prompt = wording.format(
            k=self.kind,
            w=self.phrase,
            b=base_form(self.phrase),
            n=self.name,
            s=signature(self.source, self.name),
        )
        prompt = re.sub(r"\b([Aa]) (?=(?:async function|exception|iterator class))", r"\1n ", prompt)
        if prompt.startswith(self.kind) and rng.random() < 0.5:
            prompt = prompt[0].upper() + prompt[1:]
        return prompt

    def plain_wordings(self) -> list[str]:
        if self.is_class:
            return WORDINGS["class_asks"]
        how = "how_asks" if self.kind == "function" else "how_kind_asks"
        return WORDINGS["function_asks"] + WORDINGS[how]

    def intro(self) -> str:
        article = "an" if self.kind[0] in "aei" else "a"
        return f"Here is {article} {self.kind} {'for' if self.is_class else 'that'} {self.phrase}:"

    def example(self) -> str:
        """The first check as a sentence, if it is a call and its result."""
        first = re.match(r"assert (\w+\(.*\)) == (.+)$", self.test.splitlines()[0])
        if first and first[1].startswith(self.name + "("):
            return f"For example, `{first[1]}` returns `{first[2]}`."
        return ""


def build_family(template: dict[str, Any]) -> Family:
    """Make the family of one template; its first column is a row's key, its code's last definition the name."""
    slug = template["key"]
    choose = chooser_of(template)
    style = crc32(slug.encode())  # so that a family's answers look alike

    def family(rng: Random) -> Task:
        row = choose(rng)
        key = row.get("key", "")
        parts = (fill(template[part], row).strip() for part in ("kind", "what", "code", "check"))
        wanted = Wanted(*parts)
        prompt = wanted.ask(rng)
        intro = wanted.intro() if style % 2 else ""
        if "outro" in template:
            outro = fill(template["outro"], row)
        else:
            outro = wanted.example() if style % 8 < 5 else ""
        return Task(f"{slug}/{key}" if key else slug, prompt, wanted.source + "\n", intro, outro, wanted.test)

    return family


FAMILIES: dict[str, Family] = {template["key"]: build_family(template) for template in DATA["family"]}
