"""Families of small programs: lists, dicts, sets, matrices and the classic data structures.

A family is a block of tasks/collections.txt: "@" names the table of its parameters, ">" its wordings as imperative
phrases with " | " between them, "?" examples "call -> value" with " ; " between them (checks; the first is shown in
some answers), "!" a closing explanation, then the code.  "$column" is filled from the table; $doc is the first wording.
Wordings and tables are in tasks/collections.toml.
"""

import re
from collections.abc import Callable, Sequence
from random import Random
from string import Template
from zlib import crc32

from task import Family, Row, Task, read_blocks, read_data, read_rows

Table = Callable[[Random], Row]

DATA = read_data("collections")
WORDINGS: dict[str, list[str]] = DATA["wordings"]
NUMBER_NOUNS: list[str] = DATA["words"]["number_nouns"].split()
WORD_NOUNS: list[str] = DATA["words"]["word_nouns"].split()
WORDS: list[str] = DATA["words"]["words"]
SHARED: Row = DATA["shared"]
ROWS: dict[str, list[Row]] = {name: read_rows(table) for name, table in DATA["tables"].items()}
OPPOSITE = {"==": "!=", "!=": "==", ">": "<=", "<": ">=", ">=": "<", "<=": ">"}


def third(phrase: str) -> str:
    """Turn "keep x" into "keeps x"."""
    verb, _, rest = phrase.partition(" ")
    if verb.endswith(("s", "ch", "sh", "x", "o")):
        verb += "es"
    elif verb.endswith("y") and verb[-2] not in "aeiou":
        verb = verb[:-1] + "ies"
    else:
        verb += "s"
    return f"{verb} {rest}"


def articles(text: str) -> str:
    """Correct "a" to "an" before the nouns of the tables."""
    return re.sub(r"\b([aA]) (?=(integer|amount|item|order|employee|age)\b)", r"\1n ", text)


# ---------------------------------------------------------------- conditions on numbers and words


def negate(condition: str) -> str:
    """Return the opposite condition."""
    if condition.startswith("any("):
        return f"not {condition}"
    if " not in " in condition:
        return condition.replace(" not in ", " in ")
    if " in " in condition:
        return condition.replace(" in ", " not in ")
    found = re.findall(r" ([=!<>]=|[<>]) ", condition)
    if len(found) == 1:
        return condition.replace(f" {found[0]} ", f" {OPPOSITE[found[0]]} ")
    return f"not {condition}"


def parameters(cell: str) -> Sequence[int] | str:
    """What a condition's {k} may be: "1..50" and "1 5 10" are numbers, "aeiou" letters."""
    if ".." in cell:
        first, last = cell.split("..")
        return range(int(first), int(last) + 1)
    return [int(part) for part in cell.split()] if cell[0].isdigit() else cell


def literal(value: object) -> str:
    return repr(value).replace("'", '"')


def condition_row(rng: Random, conditions: list[Row], nouns: list[str], type_: str) -> Row:
    """Choose a condition and a noun, and example items some of which meet the condition."""
    chosen = rng.choice(conditions)
    k = rng.choice(parameters(chosen["parameters"]))
    ns = rng.choice(nouns)
    x = ns[:-1]
    values = {"k": k, "n": ns, "x": x}
    if isinstance(k, int):
        values["k2"] = k * 2 + 10
    tag, phrase, clause, condition = (chosen[name] for name in ("tag", "phrase", "clause", "condition"))
    tag = tag.format(**values)
    condition = condition.format(**values)

    pool = list(WORDS) if type_ == "str" else [*range(-20, 0, 3), *range(1, 121)]
    meets = eval(f"lambda {x}: {condition}")
    seeded = Random(crc32(f"{tag}/{ns}".encode()))
    seeded.shuffle(pool)
    items = [item for item in pool if meets(item)][:2] + [item for item in pool if not meets(item)][:2]
    seeded.shuffle(items)
    return {
        "key": f"{tag}/{ns}",
        "tag": tag,
        "ns": ns,
        "x": x,
        "t": type_,
        "cond": condition,
        "neg": negate(condition),
        "np": phrase.format(**values),
        "clause": clause.format(**values),
        "np1": phrase.format(**values | {"n": x}),
        "ex": literal(items),
        "yes": literal([item for item in items if meets(item)]),
        "no": literal([item for item in items if not meets(item)]),
    }


# ---------------------------------------------------------------- choosers of parameters


def num(rng: Random) -> Row:
    return condition_row(rng, ROWS["number_conditions"], NUMBER_NOUNS, "int")


def word(rng: Random) -> Row:
    return condition_row(rng, ROWS["word_conditions"], WORD_NOUNS, "str")


def cond(rng: Random) -> Row:
    return num(rng) if rng.random() < 0.5 else word(rng)


def row_of(table: list[Row]) -> Table:
    """Any row of a table, whose first column is its key."""
    return lambda rng: keyed(rng.choice(table))


def keyed(row: Row) -> Row:
    return {"key": next(iter(row.values())), **row}


def row_and_noun(table: list[Row]) -> Table:
    """Any row of a table about lists of {x}, and a noun that its type goes with."""

    def choose(rng: Random) -> Row:
        row = rng.choice(table)
        ns = rng.choice(NUMBER_NOUNS if row["t"] == "int" else WORD_NOUNS)
        filled = {name: cell.replace("{x}", ns[:-1]) for name, cell in row.items()}
        return {**filled, "key": f"{next(iter(filled.values()))}/{ns}", "ns": ns, "x": ns[:-1]}

    return choose


def records(rng: Random) -> Row:
    row = rng.choice(ROWS["records"])
    return {"key": f"{row['rs']}/{row['field']}", **row}


def whole_number(most: int) -> Table:
    """A number from 2 to `most`."""

    def choose(rng: Random) -> Row:
        value = str(rng.randint(2, most))
        return {"key": value, "k": value}

    return choose


def shifts(rng: Random) -> Row:
    op = rng.choice("+-*")
    ns = rng.choice(NUMBER_NOUNS)
    n = rng.randint(2, 30)
    name, verb = {
        "+": (f"add_{n}", f"add {n} to every {ns[:-1]}"),
        "-": (f"subtract_{n}", f"subtract {n} from every {ns[:-1]}"),
        "*": (f"multiply_by_{n}", f"multiply every {ns[:-1]} by {n}"),
    }[op]
    return {"key": f"{name}/{ns}", "name": name, "verb": verb, "ns": ns, "x": ns[:-1], "op": op, "k": str(n)}


TABLES: dict[str, Table] = {
    "num": num,
    "word": word,
    "cond": cond,
    "items": row_of(ROWS["items"]),
    "nums": row_of(ROWS["items"][:5]),
    "dicts": row_of(ROWS["dicts"]),
    "records": records,
    "k": whole_number(20),
    "small": whole_number(6),
    "transforms": row_and_noun(ROWS["transform"]),
    "shifts": shifts,
    "sorts": row_and_noun(ROWS["sort_keys"]),
    "groups": row_and_noun(ROWS["group_keys"]),
}

# ---------------------------------------------------------------- from blocks to families


def shown_value(source: str) -> str:
    """Return the value of an expression as text, the same in every run."""
    if "Node(" in source:
        return source
    value = eval(source)
    if isinstance(value, set):
        shown = "{" + ", ".join(repr(item) for item in sorted(value)) + "}"
    else:
        shown = repr(value)
    return shown if '"' in shown else shown.replace("'", '"')


def split_block(block: str) -> tuple[dict[str, str], str]:
    """From a block to its lines by their mark, "" where one is missing, and its code."""
    head = {"@": "", ">": "", "?": "", "!": ""}
    lines = block.strip().splitlines()
    while lines[0][:1] in head and lines[0][1:2] == " ":
        head[lines[0][0]] = lines[0][2:]
        del lines[0]
    return head, "\n".join(lines)


def wordings_for(is_class: bool, named: bool) -> list[str]:
    return WORDINGS["named_" * named + "class_" * is_class + "asks"]


def build_family(name: str, block: str) -> Family:
    """Make the family of one block."""
    head, template = split_block(block)
    table = TABLES[head["@"]] if head["@"] else lambda rng: {"key": name}
    is_class = re.findall(r"^(def|class) ", template, re.M)[-1] == "class"

    def family(rng: Random) -> Task:
        row = {**SHARED, **table(rng)}

        def fill(text: str) -> str:
            return articles(Template(text).safe_substitute(row))

        phrases = [fill(phrase.strip()) for phrase in head[">"].split(" | ")]
        row["doc"] = phrases[0][0].upper() + phrases[0][1:]
        key = f"{name}/{row['key']}" if head["@"] else name
        examples = [fill(example).split(" -> ") for example in head["?"].split(" ; ")]
        code = fill(template)
        check = "\n".join(f"assert {call} == {value}, {call}" for call, value in examples)
        intro, outro = around(key, phrases[0], is_class, examples[0], fill(head["!"]))
        prompt, old, new = ask(rng, code, rng.choice(phrases), is_class)
        if new != old:
            pattern = rf"\b{old}\b" if is_class else rf"\b{old}\b(?=\()"
            code, check, outro = (re.sub(pattern, new, text) for text in (code, check, outro))
        return Task(key, prompt, code, intro, outro, check)

    return family


def around(key: str, phrase: str, is_class: bool, example: list[str], explanation: str) -> tuple[str, str]:
    """The sentences before and after the code, which depend on the key alone."""
    chance = Random(crc32(key.encode()))
    intro = ""
    if chance.random() < 0.5 and not is_class:
        intro = chance.choice(WORDINGS["intros"]).format(w=third(phrase), b=phrase)
    if chance.random() >= 0.5:
        return intro, ""
    call, value = example
    shown = shown_value(value)
    usable = not call.startswith("(") and len(call) + len(shown) < 110
    sentence = f"For example, `{call}` returns `{shown}`." if usable else ""
    return intro, chance.choice([text for text in (sentence, explanation) if text] or [""])


def ask(rng: Random, code: str, phrase: str, is_class: bool) -> tuple[str, str, str]:
    """The user's words; the name that the code defines, and the one that the user asks for."""
    old, _, annotated = re.findall(r"^(?:def|class) (\w+)(\(([^)]*)\))?", code, re.M)[-1]
    names = re.findall(r"(?:^|, )(\w+)(?=:)", annotated)
    new = old
    named = rng.random() < 0.35
    if named and rng.random() < 0.35:
        new = "My" + old if is_class else rng.choice(WORDINGS["aliases"]).format(old)
    wording = rng.choice(wordings_for(is_class, named))
    kind = "class" if is_class else "function"
    prompt = wording.format(k=kind, b=phrase, w=third(phrase), n=new, s=f"{new}({', '.join(names)})")
    prompt = prompt[0].upper() + prompt[1:] if rng.random() < 0.3 else prompt
    return prompt, old, new


def family_name(block: str, taken: dict[str, Family]) -> str:
    """A name made from the defined function: "keep_$tag" gives "collections/keep"."""
    defined = re.findall(r"^(?:def|class) ([\w${}]+)", block, re.M)[-1]
    name = "collections/" + re.sub(r"_?\$\{?\w+\}?", "", defined).strip("_")
    if name in taken or name == "collections/":
        table = split_block(block)[0]["@"] or "plain"
        name = f"{name}_{table}".replace("/_", "/")
    while name in taken:
        name += "_2"
    return name


FAMILIES: dict[str, Family] = {}
for _block in read_blocks("collections", "\n=====\n"):
    _name = family_name(_block, FAMILIES)
    FAMILIES[_name] = build_family(_name, _block)
