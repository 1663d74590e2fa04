"""Families of small programs: lists, dicts, sets, matrices and the classic data structures.

A family is a block of SPECS: "@" the tables of its parameters, ">" its wordings as imperative
phrases, "?" examples "call -> value" (checks; the first is shown in some answers), "!" a closing
explanation, then the code. "$column" is filled from the tables; $doc is the first wording.
"""

import re
from collections.abc import Callable
from random import Random
from string import Template
from zlib import crc32

from task import Family, Task

Row = dict[str, str]
Table = Callable[[Random], Row]

ASKS = (
    "Write a {k} that {w}.", "Write a Python {k} to {b}.", "write a python {k} that {w}",
    "Can you write a {k} that {w}?", "I need a {k} which {w}.", "Please write a {k} to {b}.",
    "How do I {b} in Python?", "how can i {b} in python", "Implement a {k} to {b}.",
    "{b} in python", "Give me a Python {k} that {w}.",
)  # fmt: skip
NAMED_ASKS = (
    "Define `{s}` that {w}.", "Can you implement `{s}`? It should {b}.",
    "Write a {k} called `{n}` that {w}.", "write a {k} named {n} to {b}",
    "Write `{s}` to {b}.",
)  # fmt: skip
CLASS_ASKS = (
    "Write a class for {b}.", "Write a Python class that represents {b}.", "Implement {b}.",
    "How do I implement {b} in Python?", "write a python class for {b}", "I need {b} in Python.",
    "Can you write {b} as a class?", "Please implement {b} in Python.",
)  # fmt: skip
NAMED_CLASS_ASKS = (
    "Define a class `{n}` for {b}.", "Implement {b} as a class called `{n}`.",
    "write a class named {n} for {b}",
)  # fmt: skip
INTROS = (
    "Here is a function that {w}:", "This function {w}:", "You can use this function to {b}:",
    "Here is one way to {b}:",
)  # fmt: skip
ALIASES = ("my_{}", "{}_fast", "do_{}", "solve", "process", "compute")


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


# ---------------------------------------------------------------- tables of parameters

NUMBER_NOUNS = ("numbers", "integers", "values", "scores", "amounts", "points")
WORD_NOUNS = ("words", "strings", "tags", "labels", "tokens")
WORDS = (
    "apple banana cherry dog elephant fig grape house ice jam kite lemon mango night orange pear "
    "queen rose sun tree umbrella van water box yellow zebra level noon a to sea club bird leaf "
    "egg cash back room soup hat cow sky quiz Paris Tom ROME USA 42 2024 room7 radio wolf sugar"
).split() + ["", "big cat"]  # fmt: skip
# tag, noun phrase, clause, condition; {n}: the noun, {x}: the variable, {k}: the parameter
NUMBER_CONDITIONS = (
    ("even", "even {n}", "is even", "{x} % 2 == 0", (0,)),
    ("odd", "odd {n}", "is odd", "{x} % 2 != 0", (0,)),
    ("positive", "positive {n}", "is positive", "{x} > 0", (0,)),
    ("negative", "negative {n}", "is negative", "{x} < 0", (0,)),
    ("nonnegative", "non-negative {n}", "is non-negative", "{x} >= 0", (0,)),
    ("two_digit", "two-digit {n}", "has two digits", "10 <= {x} <= 99", (0,)),
    ("greater_than_{k}", "{n} greater than {k}", "is greater than {k}", "{x} > {k}", range(1, 51)),
    ("less_than_{k}", "{n} less than {k}", "is less than {k}", "{x} < {k}", range(1, 51)),
    ("at_least_{k}", "{n} of at least {k}", "is at least {k}", "{x} >= {k}", range(1, 51)),
    ("at_most_{k}", "{n} of at most {k}", "is at most {k}", "{x} <= {k}", range(1, 51)),
    ("divisible_by_{k}", "{n} divisible by {k}", "is divisible by {k}", "{x} % {k} == 0",
     range(3, 16)),
    ("not_divisible_by_{k}", "{n} not divisible by {k}", "is not divisible by {k}",
     "{x} % {k} != 0", range(3, 10)),
    ("ending_in_{k}", "{n} ending in {k}", "ends in {k}", "abs({x}) % 10 == {k}", range(10)),
    ("between_{k}_and_{k2}", "{n} between {k} and {k2}", "is between {k} and {k2}",
     "{k} <= {x} <= {k2}", (1, 5, 10, 20, 30)),
)  # fmt: skip
LETTERS = "abcdefghlmnoprstw"
WORD_CONDITIONS = (
    ("longer_than_{k}", "{n} longer than {k} characters", "is longer than {k} characters",
     "len({x}) > {k}", range(2, 8)),
    ("shorter_than_{k}", "{n} shorter than {k} characters", "is shorter than {k} characters",
     "len({x}) < {k}", range(2, 8)),
    ("of_length_{k}", "{n} with exactly {k} characters", "has exactly {k} characters",
     "len({x}) == {k}", range(2, 8)),
    ("starting_with_{k}", "{n} starting with the letter {k}", "starts with the letter {k}",
     '{x}.startswith("{k}")', LETTERS),
    ("ending_with_{k}", "{n} ending with the letter {k}", "ends with the letter {k}",
     '{x}.endswith("{k}")', "abdeghlmnoprtwxy"),
    ("containing_{k}", "{n} containing the letter {k}", "contains the letter {k}",
     '"{k}" in {x}', LETTERS),
    ("without_{k}", "{n} without the letter {k}", "does not contain the letter {k}",
     '"{k}" not in {x}', LETTERS),
    ("uppercase", "uppercase {n}", "is uppercase", "{x}.isupper()", (0,)),
    ("lowercase", "lowercase {n}", "is lowercase", "{x}.islower()", (0,)),
    ("capitalized", "capitalized {n}", "is capitalized", "{x}[:1].isupper()", (0,)),
    ("palindromic", "palindromic {n}", "is a palindrome", "{x} == {x}[::-1]", (0,)),
    ("numeric", "numeric {n}", "is numeric", "{x}.isdigit()", (0,)),
    ("empty", "empty {n}", "is empty", '{x} == ""', (0,)),
    ("starting_with_vowel", "{n} starting with a vowel", "starts with a vowel",
     '{x}.startswith(("a", "e", "i", "o", "u"))', (0,)),
    ("with_digit", "{n} containing a digit", "contains a digit",
     "any(char.isdigit() for char in {x})", (0,)),
    ("with_space", "{n} containing a space", "contains a space", '" " in {x}', (0,)),
)  # fmt: skip


def negate(condition: str) -> str:
    """Return the opposite condition."""
    opposite = {"==": "!=", "!=": "==", ">": "<=", "<": ">=", ">=": "<", "<=": ">"}
    if condition.startswith("any("):
        return f"not {condition}"
    if " not in " in condition:
        return condition.replace(" not in ", " in ")
    if " in " in condition:
        return condition.replace(" in ", " not in ")
    found = re.findall(r" ([=!<>]=|[<>]) ", condition)
    if len(found) == 1:
        return condition.replace(f" {found[0]} ", f" {opposite[found[0]]} ")
    return f"not {condition}"


def condition_row(rng: Random, conditions: tuple, nouns: tuple[str, ...], type_: str) -> Row:
    """Choose a condition and a noun, and example items some of which meet the condition."""
    tag, phrase, clause, condition, parameters = rng.choice(conditions)
    k, ns = rng.choice(parameters), rng.choice(nouns)
    x = ns[:-1]
    values = {"k": k, "n": ns, "x": x}
    if isinstance(k, int):
        values["k2"] = k * 2 + 10
    tag, cond = tag.format(**values), condition.format(**values)
    pool = list(WORDS) if type_ == "str" else [*range(-20, 0, 3), *range(1, 121)]
    meets = eval(f"lambda {x}: {cond}")
    seeded = Random(crc32(f"{tag}/{ns}".encode()))
    seeded.shuffle(pool)
    yes = [item for item in pool if meets(item)][:2]
    no = [item for item in pool if not meets(item)][:2]
    items = yes + no
    seeded.shuffle(items)

    def literal(value: object) -> str:
        return repr(value).replace("'", '"')

    return {
        "key": f"{tag}/{ns}", "tag": tag, "ns": ns, "x": x, "t": type_, "cond": cond,
        "neg": negate(cond), "np": phrase.format(**values), "clause": clause.format(**values),
        "np1": phrase.format(**values | {"n": x}), "ex": literal(items), "fun": f"lambda {x}: {cond}",
        "yes": literal([item for item in items if meets(item)]),
        "no": literal([item for item in items if not meets(item)]),
    }  # fmt: skip


def num(rng: Random) -> Row:
    return condition_row(rng, NUMBER_CONDITIONS, NUMBER_NOUNS, "int")


def word(rng: Random) -> Row:
    return condition_row(rng, WORD_CONDITIONS, WORD_NOUNS, "str")


def cond(rng: Random) -> Row:
    return num(rng) if rng.random() < 0.5 else word(rng)


def rows(columns: str, lines: str) -> Table:
    """A table written as text: the first column is the key."""
    names = columns.split()
    table = []
    for line in lines.strip().splitlines():
        row = dict(zip(names, (cell.strip() for cell in line.split("|")), strict=True))
        table.append({"key": next(iter(row.values())), **row})
    return lambda rng: rng.choice(table)


ITEM_LINES = """
numbers | number | int | 1 | 2 | 3 | 4
scores | score | int | 10 | 20 | 30 | 40
integers | integer | int | 4 | 5 | 6 | 7
prices | price | float | 1.5 | 2.0 | 3.5 | 9.0
values | value | int | 3 | 5 | 7 | 9
words | word | str | "blue" | "green" | "red" | "white"
names | name | str | "Ann" | "Bob" | "Cid" | "Dan"
strings | string | str | "a" | "b" | "c" | "d"
colors | color | str | "black" | "blue" | "gold" | "red"
cities | city | str | "Lima" | "Oslo" | "Paris" | "Rome"
fruits | fruit | str | "apple" | "fig" | "pear" | "plum"
"""
NUMERIC_LINES = "\n".join(ITEM_LINES.strip().splitlines()[:5])
DICT_LINES = """
prices | item | price | float | "pen" | "bag" | "cup" | 1.5 | 4.0 | 2.5
scores | player | score | int | "Ann" | "Bob" | "Cid" | 7 | 9 | 8
ages | person | age | int | "Eva" | "Max" | "Tom" | 21 | 40 | 35
stock | product | quantity | int | "nail" | "bolt" | "nut" | 5 | 30 | 12
votes | candidate | count | int | "Lee" | "Kim" | "Ray" | 3 | 11 | 6
grades | student | grade | int | "Amy" | "Ben" | "Joe" | 4 | 6 | 5
populations | city | population | int | "Rome" | "Lima" | "Oslo" | 28 | 95 | 70
counts | word | count | int | "the" | "a" | "is" | 2 | 8 | 5
"""
RECORD_LINES = """
users | user | name | str | "Ann" | "Bob" | "Cid"
users | user | age | int | 20 | 30 | 40
users | user | city | str | "Lima" | "Oslo" | "Rome"
products | product | price | float | 1.5 | 2.5 | 9.0
products | product | name | str | "bag" | "cup" | "pen"
products | product | stock | int | 3 | 8 | 15
books | book | title | str | "Dune" | "Emma" | "Ulysses"
books | book | year | int | 1815 | 1922 | 1965
books | book | author | str | "Austen" | "Herbert" | "Joyce"
movies | movie | rating | float | 6.5 | 7.0 | 8.5
movies | movie | genre | str | "comedy" | "drama" | "horror"
students | student | grade | int | 4 | 5 | 6
students | student | name | str | "Amy" | "Ben" | "Joe"
orders | order | total | float | 10.0 | 25.5 | 99.0
orders | order | status | str | "new" | "paid" | "sent"
employees | employee | salary | int | 2000 | 3000 | 4500
employees | employee | team | str | "dev" | "ops" | "sales"
cars | car | brand | str | "Audi" | "Fiat" | "Ford"
cars | car | speed | int | 90 | 120 | 180
"""
items = rows("ns x t a b c d", ITEM_LINES)
nums = rows("ns x t a b c d", NUMERIC_LINES)
dicts = rows("ds ek ev vt p q r u v w", DICT_LINES)
_records = [[c.strip() for c in line.split("|")] for line in RECORD_LINES.strip().splitlines()]


def records(rng: Random) -> Row:
    rs, r, field, ft, a, b, c = rng.choice(_records)
    row = {"rs": rs, "r": r, "field": field, "ft": ft, "a": a, "b": b, "c": c}
    return {"key": f"{rs}/{field}", **row}


def k(rng: Random) -> Row:
    value = str(rng.randint(2, 20))
    return {"key": value, "k": value}


def small(rng: Random) -> Row:
    value = str(rng.randint(2, 6))
    return {"key": value, "k": value}


# verb phrase for one list, name, result type (of int), expression, examples
transform = rows("op verb t rt body given result", """
double | double every {x} | int | int | {x} * 2 | [1, 2, 5] | [2, 4, 10]
triple | triple every {x} | int | int | {x} * 3 | [1, 2, 5] | [3, 6, 15]
square | square every {x} | int | int | {x} ** 2 | [1, -2, 5] | [1, 4, 25]
cube | cube every {x} | int | int | {x} ** 3 | [1, -2, 3] | [1, -8, 27]
negate | negate every {x} | int | int | -{x} | [1, -2, 0] | [-1, 2, 0]
halve | halve every {x} | int | float | {x} / 2 | [1, 4] | [0.5, 2.0]
increment | increment every {x} | int | int | {x} + 1 | [1, 9] | [2, 10]
decrement | decrement every {x} | int | int | {x} - 1 | [1, 9] | [0, 8]
absolute | take the absolute value of every {x} | int | int | abs({x}) | [1, -2] | [1, 2]
stringify | convert every {x} to a string | int | str | str({x}) | [1, 23] | ["1", "23"]
to_float | convert every {x} to a float | int | float | float({x}) | [1, 2] | [1.0, 2.0]
last_digit | take the last digit of every {x} | int | int | abs({x}) % 10 | [12, 345] | [2, 5]
clip_negative | replace every negative {x} with zero | int | int | max({x}, 0) | [3, -4] | [3, 0]
uppercase | uppercase every {x} | str | str | {x}.upper() | ["ab", "C"] | ["AB", "C"]
lowercase | lowercase every {x} | str | str | {x}.lower() | ["AB", "c"] | ["ab", "c"]
capitalize | capitalize every {x} | str | str | {x}.capitalize() | ["sun", "sea"] | ["Sun", "Sea"]
reverse | reverse every {x} | str | str | {x}[::-1] | ["abc", "de"] | ["cba", "ed"]
length_of | get the length of every {x} | str | int | len({x}) | ["abc", ""] | [3, 0]
first_letter | get the first letter of every {x} | str | str | {x}[:1] | ["sun", "hat"] | ["s", "h"]
last_letter | get the last letter of every {x} | str | str | {x}[-1:] | ["sun", "hat"] | ["n", "t"]
strip | strip the spaces around every {x} | str | str | {x}.strip() | [" a ", "b"] | ["a", "b"]
parse | convert every {x} to an integer | str | int | int({x}) | ["1", "23"] | [1, 23]
repeat | repeat every {x} twice | str | str | {x} * 2 | ["ab", "c"] | ["abab", "cc"]
swap_case | swap the case of every {x} | str | str | {x}.swapcase() | ["aB", "C"] | ["Ab", "c"]
sort_letters | sort the letters of every {x} | str | str | "".join(sorted({x})) | ["cab"] | ["abc"]
count_vowels | count the vowels of every {x} | str | int | sum(char in "aeiou" for char in {x}) | ["house", "sky"] | [3, 0]
""")  # fmt: skip


def transforms(rng: Random) -> Row:
    row = transform(rng)
    ns = rng.choice(NUMBER_NOUNS if row["t"] == "int" else WORD_NOUNS)
    row = {name: cell.replace("{x}", ns[:-1]) for name, cell in row.items()}
    return {**row, "key": f"{row['op']}/{ns}", "ns": ns, "x": ns[:-1]}




def shifts(rng: Random) -> Row:
    op, ns, n = rng.choice("+-*"), rng.choice(NUMBER_NOUNS), rng.randint(2, 30)
    name, verb = {
        "+": (f"add_{n}", f"add {n} to every {ns[:-1]}"),
        "-": (f"subtract_{n}", f"subtract {n} from every {ns[:-1]}"),
        "*": (f"multiply_by_{n}", f"multiply every {ns[:-1]} by {n}"),
    }[op]
    return {"key": f"{name}/{ns}", "name": name, "verb": verb, "ns": ns, "x": ns[:-1],
            "op": op, "k": str(n)}  # fmt: skip


sort_keys = rows("tag t how body given result", """
by_length | str | by length | len | ["kiwi", "fig", "apple"] | ["fig", "kiwi", "apple"]
by_last_letter | str | by their last letter | lambda {x}: {x}[-1:] | ["sea", "hat", "dog"] | ["sea", "dog", "hat"]
ignoring_case | str | ignoring case | str.lower | ["b", "C", "A"] | ["A", "b", "C"]
by_length_then_alphabet | str | by length and then alphabetically | lambda {x}: (len({x}), {x}) | ["pear", "fig", "cow"] | ["cow", "fig", "pear"]
by_vowel_count | str | by their number of vowels | lambda {x}: sum(char in "aeiou" for char in {x}) | ["house", "sky", "hat"] | ["sky", "hat", "house"]
by_second_letter | str | by their second letter | lambda {x}: {x}[1:2] | ["sun", "hat", "ice"] | ["hat", "ice", "sun"]
by_absolute_value | int | by absolute value | abs | [-5, 2, -3] | [2, -3, -5]
by_last_digit | int | by their last digit | lambda {x}: abs({x}) % 10 | [25, 11, 93] | [11, 93, 25]
by_distance_from_10 | int | by their distance from 10 | lambda {x}: abs({x} - 10) | [1, 12, 9] | [9, 12, 1]
by_digit_sum | int | by the sum of their digits | lambda {x}: sum(int(digit) for digit in str(abs({x}))) | [91, 12, 40] | [12, 40, 91]
even_first | int | with the even ones first | lambda {x}: {x} % 2 | [3, 4, 5, 6] | [4, 6, 3, 5]
as_text | int | by their text form | str | [9, 10, 2] | [10, 2, 9]
""")  # fmt: skip


def sorts(rng: Random) -> Row:
    row = sort_keys(rng)
    ns = rng.choice(NUMBER_NOUNS if row["t"] == "int" else WORD_NOUNS)
    row = {name: cell.replace("{x}", ns[:-1]) for name, cell in row.items()}
    return {**row, "key": f"{row['tag']}/{ns}", "ns": ns, "x": ns[:-1]}


group_keys = rows("tag what t kt body given result", """
length | length | str | int | len({x}) | ["a", "to", "b"] | {1: ["a", "b"], 2: ["to"]}
first_letter | first letter | str | str | {x}[:1] | ["ant", "bee", "ape"] | {"a": ["ant", "ape"], "b": ["bee"]}
last_letter | last letter | str | str | {x}[-1:] | ["sea", "hat", "tea"] | {"a": ["sea", "tea"], "t": ["hat"]}
lowercase_form | lowercase form | str | str | {x}.lower() | ["A", "b", "a"] | {"a": ["A", "a"], "b": ["b"]}
sorted_letters | sorted letters | str | str | "".join(sorted({x})) | ["tea", "eat", "go"] | {"aet": ["tea", "eat"], "go": ["go"]}
parity | parity | int | str | "even" if {x} % 2 == 0 else "odd" | [1, 2, 3] | {"odd": [1, 3], "even": [2]}
last_digit | last digit | int | int | abs({x}) % 10 | [12, 31, 42] | {2: [12, 42], 1: [31]}
remainder_by_3 | remainder modulo 3 | int | int | {x} % 3 | [3, 4, 6] | {0: [3, 6], 1: [4]}
remainder_by_5 | remainder modulo 5 | int | int | {x} % 5 | [5, 6, 10] | {0: [5, 10], 1: [6]}
tens | tens | int | int | {x} // 10 * 10 | [12, 25, 19] | {10: [12, 19], 20: [25]}
number_of_digits | number of digits | int | int | len(str(abs({x}))) | [1, 22, 3] | {1: [1, 3], 2: [22]}
""")  # fmt: skip


def groups(rng: Random) -> Row:
    row = group_keys(rng)
    ns = rng.choice(NUMBER_NOUNS if row["t"] == "int" else WORD_NOUNS)
    row = {name: cell.replace("{x}", ns[:-1]) for name, cell in row.items()}
    return {**row, "key": f"{row['tag']}/{ns}", "ns": ns, "x": ns[:-1]}


