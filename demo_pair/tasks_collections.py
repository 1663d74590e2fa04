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
        "np1": phrase.format(**values | {"n": x}), "ex": literal(items),
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


# ---------------------------------------------------------------- the families

PARAMETRIC = '''
@ cond
> keep only the $np in a list | filter a list so that only the $np remain | return the $np of a list
? keep_$tag($ex) -> $yes
! The list comprehension keeps a $x only if it passes the condition.
def keep_$tag($ns: list[$t]) -> list[$t]:
    """$doc."""
    return [$x for $x in $ns if $cond]
=====
@ cond
> remove the $np from a list | drop all $np from a list | return a list without its $np
? remove_$tag($ex) -> $no
! It builds a new list, so the original list is not changed.
def remove_$tag($ns: list[$t]) -> list[$t]:
    """$doc."""
    return [$x for $x in $ns if $neg]
=====
@ cond
> count the $np in a list | count how many $np a list has | compute the number of $np in a list
? count_$tag($ex) -> len($yes)
! The generator yields 1 for each match, and `sum` adds them up.
def count_$tag($ns: list[$t]) -> int:
    """$doc."""
    return sum(1 for $x in $ns if $cond)
=====
@ cond
> find the first $np1 in a list | get the first $np1 of a list | return the first of the $np in a list or None
? find_first_$tag($ex) -> $yes[0] ; find_first_$tag([]) -> None
! `next` stops at the first match, and the default `None` covers the case of no match.
def find_first_$tag($ns: list[$t]) -> $t | None:
    """$doc."""
    return next(($x for $x in $ns if $cond), None)
=====
@ cond
> find the last $np1 in a list | get the last $np1 of a list | return the last of the $np in a list or None
? find_last_$tag($ex) -> $yes[-1] ; find_last_$tag([]) -> None
! The loop walks backwards and returns at the first match.
def find_last_$tag($ns: list[$t]) -> $t | None:
    """$doc."""
    for $x in reversed($ns):
        if $cond:
            return $x
    return None
=====
@ cond
> check whether any $x in a list $clause | tell if at least one $x in a list $clause
? any_$tag($ex) -> True ; any_$tag([]) -> False
! `any` stops as soon as it finds a match.
def any_$tag($ns: list[$t]) -> bool:
    """$doc."""
    return any($cond for $x in $ns)
=====
@ cond
> check whether every $x in a list $clause | tell if each $x in a list $clause
? all_$tag($ex) -> False ; all_$tag($yes) -> True
! For an empty list the result is `True`.
def all_$tag($ns: list[$t]) -> bool:
    """$doc."""
    return all($cond for $x in $ns)
=====
@ cond
> check that no $x in a list $clause | tell if not a single $x in a list $clause
? none_$tag($ex) -> False ; none_$tag($no) -> True
! It is the opposite of `any`.
def none_$tag($ns: list[$t]) -> bool:
    """$doc."""
    return not any($cond for $x in $ns)
=====
@ cond
> find the index of the first $np1 in a list | return the position of the first $np1 in a list
? index_of_$tag($ex) -> $ex.index($yes[0]) ; index_of_$tag([]) -> -1
! It returns -1 when there is no match.
def index_of_$tag($ns: list[$t]) -> int:
    """$doc."""
    for index, $x in enumerate($ns):
        if $cond:
            return index
    return -1
=====
@ cond
> find the indexes of all $np in a list | list the positions of the $np in a list
? indexes_of_$tag($ex) -> sorted($ex.index(item) for item in $yes)
! `enumerate` gives each $x together with its index.
def indexes_of_$tag($ns: list[$t]) -> list[int]:
    """$doc."""
    return [index for index, $x in enumerate($ns) if $cond]
=====
@ cond
> split a list into the $np and the rest | separate the $np of a list from the others | partition a list into the $np and all others
? partition_$tag($ex) -> ($yes, $no)
! The first list of the pair has the matches, the second one has everything else.
def partition_$tag($ns: list[$t]) -> tuple[list[$t], list[$t]]:
    """$doc."""
    matching: list[$t] = []
    others: list[$t] = []
    for $x in $ns:
        if $cond:
            matching.append($x)
        else:
            others.append($x)
    return matching, others
=====
@ cond
> sort the $np of a list | return the $np of a list in sorted order
? sort_$tag($ex) -> sorted($yes)
def sort_$tag($ns: list[$t]) -> list[$t]:
    """$doc."""
    return sorted($x for $x in $ns if $cond)
=====
@ cond
> collect the distinct $np of a list in a set | get the set of the $np in a list
? unique_$tag($ex) -> set($yes)
! A set keeps each $x only once.
def unique_$tag($ns: list[$t]) -> set[$t]:
    """$doc."""
    return {$x for $x in $ns if $cond}
=====
@ cond
> take items from the start of a list as long as each $x $clause | return the leading $np of a list
? take_while_$tag($yes + $no) -> $yes ; take_while_$tag($no) -> []
! The loop stops at the first $x which fails the condition.
def take_while_$tag($ns: list[$t]) -> list[$t]:
    """$doc."""
    result: list[$t] = []
    for $x in $ns:
        if $neg:
            break
        result.append($x)
    return result
=====
@ num
> add up the $np in a list | sum the $np of a list | compute the sum of the $np in a list
? sum_$tag($ex) -> sum($yes)
! The generator yields only the matching $ns.
def sum_$tag($ns: list[int]) -> int:
    """$doc."""
    return sum($x for $x in $ns if $cond)
=====
@ num
> compute the average of the $np in a list | return the mean of the $np of a list
? average_$tag($ex) -> sum($yes) / len($yes) ; average_$tag([]) -> 0.0
! It returns 0.0 if there is no match, which avoids a division by zero.
def average_$tag($ns: list[int]) -> float:
    """$doc."""
    matching = [$x for $x in $ns if $cond]
    return sum(matching) / len(matching) if matching else 0.0
=====
@ num
> multiply the $np in a list together | compute the product of the $np in a list
? product_$tag($ex) -> $yes[0] * $yes[-1] ; product_$tag([]) -> 1
! The product starts at 1, so the result for no matches is 1.
def product_$tag($ns: list[int]) -> int:
    """$doc."""
    product = 1
    for $x in $ns:
        if $cond:
            product *= $x
    return product
=====
@ num
> find the largest of the $np in a list | return the maximum of the $np in a list
? largest_$tag($ex) -> max($yes) ; largest_$tag([]) -> None
! It returns `None` when nothing matches.
def largest_$tag($ns: list[int]) -> int | None:
    """$doc."""
    return max(($x for $x in $ns if $cond), default=None)
=====
@ num
> find the smallest of the $np in a list | return the minimum of the $np in a list
? smallest_$tag($ex) -> min($yes) ; smallest_$tag([]) -> None
! It returns `None` when nothing matches.
def smallest_$tag($ns: list[int]) -> int | None:
    """$doc."""
    return min(($x for $x in $ns if $cond), default=None)
=====
@ num
> square the $np in a list | return the squares of the $np in a list
? square_$tag($ex) -> [item * item for item in $yes]
def square_$tag($ns: list[int]) -> list[int]:
    """$doc."""
    return [$x ** 2 for $x in $ns if $cond]
=====
@ num
> replace the $np in a list with zero | set the $np of a list to 0
? zero_$tag($ex) -> [0 if item in $yes else item for item in $ex]
! The conditional expression chooses between 0 and the $x itself.
def zero_$tag($ns: list[int]) -> list[int]:
    """$doc."""
    return [0 if $cond else $x for $x in $ns]
=====
@ word
> find the longest of the $np in a list | return the longest one of the $np in a list
? longest_$tag($ex) -> max($yes, key=len) ; longest_$tag([]) -> None
! `max` compares the lengths because of `key=len`.
def longest_$tag($ns: list[str]) -> str | None:
    """$doc."""
    return max(($x for $x in $ns if $cond), key=len, default=None)
=====
@ word
> find the shortest of the $np in a list | return the shortest one of the $np in a list
? shortest_$tag($ex) -> min($yes, key=len) ; shortest_$tag([]) -> None
! `min` compares the lengths because of `key=len`.
def shortest_$tag($ns: list[str]) -> str | None:
    """$doc."""
    return min(($x for $x in $ns if $cond), key=len, default=None)
=====
@ word
> join the $np of a list with commas | make a comma-separated string of the $np in a list
? join_$tag($ex) -> ", ".join($yes)
def join_$tag($ns: list[str]) -> str:
    """$doc."""
    return ", ".join($x for $x in $ns if $cond)
=====
@ word
> uppercase the $np in a list | change the $np of a list to upper case and leave the others
? uppercase_$tag($ex) -> [item.upper() if item in $yes else item for item in $ex]
def uppercase_$tag($ns: list[str]) -> list[str]:
    """$doc."""
    return [$x.upper() if $cond else $x for $x in $ns]
=====
@ word
> map the $np of a list to their lengths | build a dict from the $np in a list to their lengths
? lengths_of_$tag($ex) -> {item: len(item) for item in $yes}
! It is a dict comprehension with a condition.
def lengths_of_$tag($ns: list[str]) -> dict[str, int]:
    """$doc."""
    return {$x: len($x) for $x in $ns if $cond}
=====
@ transforms
> $verb in a list | $verb of a list
? ${op}_$ns($given) -> $result ; ${op}_$ns([]) -> []
! The list comprehension builds a new list of the same length.
def ${op}_$ns($ns: list[$t]) -> list[$rt]:
    """$doc."""
    return [$body for $x in $ns]
=====
@ shifts
> $verb in a list | $verb of a list
? ${name}([1, 10]) -> [1 $op $k, 10 $op $k]
def $name($ns: list[int]) -> list[int]:
    """$doc."""
    return [$x $op $k for $x in $ns]
=====
@ sorts
> sort a list of $ns $how | order a list of $ns $how
? sort_$tag($given) -> $result
! `sorted` returns a new list, and `key` says what to compare.
def sort_$tag($ns: list[$t]) -> list[$t]:
    """$doc."""
    return sorted($ns, key=$body)
=====
@ sorts
> sort a list of $ns $how in reverse order | order a list of $ns $how descending
? sort_${tag}_descending($given) -> sorted($given, key=$body, reverse=True)
! With `reverse=True` the order is turned around.
def sort_${tag}_descending($ns: list[$t]) -> list[$t]:
    """$doc."""
    return sorted($ns, key=$body, reverse=True)
=====
@ groups
> group a list of $ns by $what | put a list of $ns into groups by their $what
? group_by_$tag($given) -> $result
! `setdefault` creates an empty list the first time a key is seen.
def group_by_$tag($ns: list[$t]) -> dict[$kt, list[$t]]:
    """$doc."""
    groups: dict[$kt, list[$t]] = {}
    for $x in $ns:
        groups.setdefault($body, []).append($x)
    return groups
=====
@ groups
> count a list of $ns by $what | count how often each $what occurs in a list of $ns
? count_by_$tag($given) -> {key: len(group) for key, group in $result.items()}
! `Counter` counts the values of the generator.
from collections import Counter


def count_by_$tag($ns: list[$t]) -> dict[$kt, int]:
    """$doc."""
    return dict(Counter($body for $x in $ns))
=====
@ items
> remove the duplicates from a list of $ns | deduplicate a list of $ns and keep the order | drop repeated $ns from a list
? remove_duplicates([$c, $a, $c, $b]) -> [$c, $a, $b]
! A dict keeps its keys in insertion order, so the first occurrence of each $x wins.
def remove_duplicates($ns: list[$t]) -> list[$t]:
    """$doc."""
    return list(dict.fromkeys($ns))
=====
@ items
> find the duplicates in a list of $ns | return the $ns which occur more than once in a list
? find_duplicates([$a, $b, $a, $c, $a]) -> [$a]
! `Counter` counts the $ns, and the comprehension keeps those with a count above 1.
from collections import Counter


def find_duplicates($ns: list[$t]) -> list[$t]:
    """$doc."""
    return [$x for $x, count in Counter($ns).items() if count > 1]
=====
@ items
> check whether a list of $ns has duplicates | tell if any $x occurs twice in a list of $ns
? has_duplicates([$a, $b, $a]) -> True ; has_duplicates([$a, $b]) -> False
! A set drops duplicates, so it is smaller than the list if there are any.
def has_duplicates($ns: list[$t]) -> bool:
    """$doc."""
    return len(set($ns)) < len($ns)
=====
@ items
> count how often each $x occurs in a list | count the $ns in a list and return a dict | compute the frequency of each $x in a list
? count_$ns([$a, $b, $a]) -> {$a: 2, $b: 1}
! `get` returns 0 for a $x that has not been seen yet.
def count_$ns($ns: list[$t]) -> dict[$t, int]:
    """$doc."""
    counts: dict[$t, int] = {}
    for $x in $ns:
        counts[$x] = counts.get($x, 0) + 1
    return counts
=====
@ items
> find the most common $x in a list | return the most frequent $x of a list
? most_common_$x([$a, $b, $b]) -> $b
! `most_common(1)` returns a list with one pair of the item and its count.
from collections import Counter


def most_common_$x($ns: list[$t]) -> $t:
    """$doc."""
    return Counter($ns).most_common(1)[0][0]
=====
@ items
> flatten a list of lists of $ns | turn nested lists of $ns into one list
? flatten_$ns([[$a, $b], [], [$c]]) -> [$a, $b, $c]
! The comprehension has two loops, from the outer to the inner list.
def flatten_$ns(lists: list[list[$t]]) -> list[$t]:
    """$doc."""
    return [$x for $ns in lists for $x in $ns]
=====
@ items
> split a list of $ns into chunks of a given size | break a list of $ns into pieces of equal size
? chunk_$ns([$a, $b, $c], 2) -> [[$a, $b], [$c]]
! The last chunk may be shorter than the others.
def chunk_$ns($ns: list[$t], size: int) -> list[list[$t]]:
    """$doc."""
    return [$ns[start : start + size] for start in range(0, len($ns), size)]
=====
@ items
> rotate a list of $ns to the left by k places | move the first k $ns of a list to its end
? rotate_left([$a, $b, $c], 1) -> [$b, $c, $a] ; rotate_left([], 2) -> []
! The remainder makes a k beyond the length of the list work.
def rotate_left($ns: list[$t], k: int) -> list[$t]:
    """$doc."""
    if not $ns:
        return []
    k %= len($ns)
    return $ns[k:] + $ns[:k]
=====
@ items
> rotate a list of $ns to the right by k places | move the last k $ns of a list to its start
? rotate_right([$a, $b, $c], 1) -> [$c, $a, $b] ; rotate_right([], 2) -> []
def rotate_right($ns: list[$t], k: int) -> list[$t]:
    """$doc."""
    if not $ns:
        return []
    k %= len($ns)
    return $ns[-k:] + $ns[:-k]
=====
@ items
> reverse a list of $ns | return a list of $ns in reverse order
? reverse_$ns([$a, $b, $c]) -> [$c, $b, $a]
! The slice `[::-1]` walks through the list backwards.
def reverse_$ns($ns: list[$t]) -> list[$t]:
    """$doc."""
    return $ns[::-1]
=====
@ items
> find the $ns that two lists have in common | compute the intersection of two lists of $ns
? common_$ns([$a, $b, $c], [$c, $a]) -> [$a, $c]
! The set makes the membership test fast, and the order of the first list is kept.
def common_$ns(first: list[$t], second: list[$t]) -> list[$t]:
    """$doc."""
    allowed = set(second)
    return [$x for $x in first if $x in allowed]
=====
@ items
> find the $ns of one list that are missing from another | compute the difference of two lists of $ns
? missing_$ns([$a, $b, $c], [$b]) -> [$a, $c]
def missing_$ns(first: list[$t], second: list[$t]) -> list[$t]:
    """$doc."""
    excluded = set(second)
    return [$x for $x in first if $x not in excluded]
=====
@ items
> merge two lists of $ns without duplicates | compute the union of two lists of $ns
? union_of_$ns([$a, $b], [$b, $c]) -> [$a, $b, $c]
def union_of_$ns(first: list[$t], second: list[$t]) -> list[$t]:
    """$doc."""
    return list(dict.fromkeys(first + second))
=====
@ items
> interleave two lists of $ns | alternate between the $ns of two lists of equal length
? interleave([$a, $b], [$c, $d]) -> [$a, $c, $b, $d]
! `zip` pairs the items, and the inner loop unpacks each pair.
def interleave(first: list[$t], second: list[$t]) -> list[$t]:
    """$doc."""
    return [$x for pair in zip(first, second) for $x in pair]
=====
@ items
> find the largest $x in a list without using max | search a list of $ns for the greatest one with a loop
? find_largest([$b, $d, $a]) -> $d
! The loop remembers the largest $x seen so far.
def find_largest($ns: list[$t]) -> $t:
    """$doc."""
    largest = $ns[0]
    for $x in $ns[1:]:
        if $x > largest:
            largest = $x
    return largest
=====
@ items
> find the smallest $x in a list without using min | search a list of $ns for the least one with a loop
? find_smallest([$b, $d, $a]) -> $a
! The loop remembers the smallest $x seen so far.
def find_smallest($ns: list[$t]) -> $t:
    """$doc."""
    smallest = $ns[0]
    for $x in $ns[1:]:
        if $x < smallest:
            smallest = $x
    return smallest
=====
@ items
> find the second largest $x in a list | return the second greatest distinct $x of a list
? second_largest([$b, $d, $d, $a]) -> $b ; second_largest([$a]) -> None
! The set removes duplicates before the sorting.
def second_largest($ns: list[$t]) -> $t | None:
    """$doc."""
    ordered = sorted(set($ns))
    return ordered[-2] if len(ordered) > 1 else None
=====
@ items
> check whether a list of $ns is sorted | tell if a list of $ns is in ascending order
? is_sorted([$a, $b, $b]) -> True ; is_sorted([$b, $a]) -> False
! It compares each $x with the next one.
def is_sorted($ns: list[$t]) -> bool:
    """$doc."""
    return all(left <= right for left, right in zip($ns, $ns[1:]))
=====
@ items
> find a $x in a list with linear search | return the index of a $x in an unsorted list or -1
? linear_search([$c, $a, $b], $a) -> 1 ; linear_search([$a], $d) -> -1
! It looks at one $x after the other, so it works on unsorted lists as well.
def linear_search($ns: list[$t], target: $t) -> int:
    """$doc."""
    for index, $x in enumerate($ns):
        if $x == target:
            return index
    return -1
=====
@ items
> find a $x in a sorted list with binary search | search a sorted list of $ns with binary search
? binary_search([$a, $b, $c, $d], $c) -> 2 ; binary_search([$a, $c], $b) -> -1
! Each step halves the range, so it takes about log2(n) steps.
def binary_search($ns: list[$t], target: $t) -> int:
    """$doc."""
    low, high = 0, len($ns) - 1
    while low <= high:
        middle = (low + high) // 2
        if $ns[middle] == target:
            return middle
        if $ns[middle] < target:
            low = middle + 1
        else:
            high = middle - 1
    return -1
=====
@ items
> sort a list of $ns with bubble sort | implement bubble sort for a list of $ns
? bubble_sort([$c, $a, $b]) -> [$a, $b, $c] ; bubble_sort([]) -> []
! Neighbours in the wrong order are swapped until a pass makes no swap.
def bubble_sort($ns: list[$t]) -> list[$t]:
    """$doc."""
    result = $ns.copy()
    for end in range(len(result) - 1, 0, -1):
        swapped = False
        for i in range(end):
            if result[i] > result[i + 1]:
                result[i], result[i + 1] = result[i + 1], result[i]
                swapped = True
        if not swapped:
            break
    return result
=====
@ items
> sort a list of $ns with insertion sort | implement insertion sort for a list of $ns
? insertion_sort([$c, $a, $b]) -> [$a, $b, $c] ; insertion_sort([]) -> []
! Each $x is moved left until it is in its place.
def insertion_sort($ns: list[$t]) -> list[$t]:
    """$doc."""
    result = $ns.copy()
    for i in range(1, len(result)):
        current = result[i]
        j = i
        while j > 0 and result[j - 1] > current:
            result[j] = result[j - 1]
            j -= 1
        result[j] = current
    return result
=====
@ items
> sort a list of $ns with selection sort | implement selection sort for a list of $ns
? selection_sort([$c, $a, $b]) -> [$a, $b, $c] ; selection_sort([]) -> []
! Each pass puts the smallest remaining $x in its place.
def selection_sort($ns: list[$t]) -> list[$t]:
    """$doc."""
    result = $ns.copy()
    for i in range(len(result)):
        smallest = min(range(i, len(result)), key=result.__getitem__)
        result[i], result[smallest] = result[smallest], result[i]
    return result
=====
@ items
> sort a list of $ns with quick sort | implement quicksort for a list of $ns
? quick_sort([$c, $a, $d, $a]) -> [$a, $a, $c, $d] ; quick_sort([]) -> []
! The pivot splits the list into two parts, which are sorted recursively.
def quick_sort($ns: list[$t]) -> list[$t]:
    """$doc."""
    if len($ns) <= 1:
        return $ns
    pivot = $ns[len($ns) // 2]
    smaller = [$x for $x in $ns if $x < pivot]
    equal = [$x for $x in $ns if $x == pivot]
    larger = [$x for $x in $ns if $x > pivot]
    return quick_sort(smaller) + equal + quick_sort(larger)
=====
@ items
> merge two sorted lists of $ns | combine two sorted lists of $ns into one sorted list
? merge_sorted([$a, $c], [$b, $d]) -> [$a, $b, $c, $d] ; merge_sorted([], [$a]) -> [$a]
! The smaller of the two front items is taken in each step.
def merge_sorted(left: list[$t], right: list[$t]) -> list[$t]:
    """$doc."""
    result: list[$t] = []
    i = j = 0
    while i < len(left) and j < len(right):
        if left[i] <= right[j]:
            result.append(left[i])
            i += 1
        else:
            result.append(right[j])
            j += 1
    return result + left[i:] + right[j:]
=====
@ items
> sort a list of $ns with merge sort | implement merge sort for a list of $ns
? merge_sort([$c, $a, $d, $b]) -> [$a, $b, $c, $d] ; merge_sort([]) -> []
! Both halves are sorted recursively and then merged.
def merge_sort($ns: list[$t]) -> list[$t]:
    """$doc."""
    if len($ns) <= 1:
        return $ns
    middle = len($ns) // 2
    left, right = merge_sort($ns[:middle]), merge_sort($ns[middle:])
    result: list[$t] = []
    i = j = 0
    while i < len(left) and j < len(right):
        if left[i] <= right[j]:
            result.append(left[i])
            i += 1
        else:
            result.append(right[j])
            j += 1
    return result + left[i:] + right[j:]
=====
@ items
> find all pairs of $ns in a list | return every pair of two different positions in a list of $ns
? all_pairs([$a, $b, $c]) -> [($a, $b), ($a, $c), ($b, $c)]
from itertools import combinations


def all_pairs($ns: list[$t]) -> list[tuple[$t, $t]]:
    """$doc."""
    return list(combinations($ns, 2))
=====
@ items
> generate all permutations of a list of $ns | list every order of a list of $ns
? all_permutations([$a, $b]) -> [[$a, $b], [$b, $a]] ; len(all_permutations([$a, $b, $c])) -> 6
! Each $x comes first once, followed by the permutations of the rest.
def all_permutations($ns: list[$t]) -> list[list[$t]]:
    """$doc."""
    if not $ns:
        return [[]]
    result: list[list[$t]] = []
    for index, $x in enumerate($ns):
        rest = $ns[:index] + $ns[index + 1 :]
        result.extend([$x, *tail] for tail in all_permutations(rest))
    return result
=====
@ items
> generate all subsets of a list of $ns | compute the power set of a list of $ns
? all_subsets([$a, $b]) -> [[], [$a], [$b], [$a, $b]]
! Each $x doubles the number of subsets.
def all_subsets($ns: list[$t]) -> list[list[$t]]:
    """$doc."""
    subsets: list[list[$t]] = [[]]
    for $x in $ns:
        subsets += [[*subset, $x] for subset in subsets]
    return subsets
=====
@ items
> insert a separator between the $ns of a list | put a given value between all $ns of a list
? intersperse([$a, $b], $d) -> [$a, $d, $b] ; intersperse([], $d) -> []
def intersperse($ns: list[$t], separator: $t) -> list[$t]:
    """$doc."""
    result: list[$t] = []
    for index, $x in enumerate($ns):
        if index > 0:
            result.append(separator)
        result.append($x)
    return result
=====
@ items
> remove every occurrence of a $x from a list | delete all copies of a given $x in a list
? remove_$x([$a, $b, $a], $a) -> [$b]
def remove_$x($ns: list[$t], target: $t) -> list[$t]:
    """$doc."""
    return [$x for $x in $ns if $x != target]
=====
@ items
> replace one $x with another in a list | swap every old $x of a list for a new one
? replace_$x([$a, $b, $a], $a, $c) -> [$c, $b, $c]
def replace_$x($ns: list[$t], old: $t, new: $t) -> list[$t]:
    """$doc."""
    return [new if $x == old else $x for $x in $ns]
=====
@ items
> collapse runs of equal $ns in a list | remove consecutive duplicates from a list of $ns
? collapse_runs([$a, $a, $b, $a]) -> [$a, $b, $a]
! `groupby` puts equal neighbours in one group.
from itertools import groupby


def collapse_runs($ns: list[$t]) -> list[$t]:
    """$doc."""
    return [$x for $x, _ in groupby($ns)]
=====
@ items
> take every second $x of a list | return the $ns at even positions in a list
? every_second([$a, $b, $c]) -> [$a, $c]
! The step of the slice is 2.
def every_second($ns: list[$t]) -> list[$t]:
    """$doc."""
    return $ns[::2]
=====
@ items
> swap the first and last $x of a list | exchange the first and the last $x in a list
? swap_ends([$a, $b, $c]) -> [$c, $b, $a] ; swap_ends([]) -> []
def swap_ends($ns: list[$t]) -> list[$t]:
    """$doc."""
    result = $ns.copy()
    if result:
        result[0], result[-1] = result[-1], result[0]
    return result
=====
@ items
> find the n largest $ns in a list | return the top n $ns of a list
? largest_$ns([$b, $d, $a, $c], 2) -> [$d, $c]
import heapq


def largest_$ns($ns: list[$t], n: int) -> list[$t]:
    """$doc."""
    return heapq.nlargest(n, $ns)
=====
@ items
> find the majority element in a list of $ns | return the $x that fills more than half of a list
? majority_$x([$b, $a, $b]) -> $b ; majority_$x([$a, $b]) -> None
! `most_common(1)` gives the only candidate, and its count decides.
from collections import Counter


def majority_$x($ns: list[$t]) -> $t | None:
    """$doc."""
    if not $ns:
        return None
    candidate, count = Counter($ns).most_common(1)[0]
    return candidate if count > len($ns) / 2 else None
=====
@ nums
> compute the running total of a list of $ns | return the cumulative sums of a list of $ns
? running_total([1, 2, 3]) -> [1, 3, 6]
! Each entry is the sum of all $ns up to that point.
def running_total($ns: list[$t]) -> list[$t]:
    """$doc."""
    totals: list[$t] = []
    total: $t = 0
    for $x in $ns:
        total += $x
        totals.append(total)
    return totals
=====
@ nums
> compute the differences between neighbouring $ns in a list | return the change from each $x to the next
? differences([1, 4, 6]) -> [3, 2]
! `zip` pairs each $x with its successor.
def differences($ns: list[$t]) -> list[$t]:
    """$doc."""
    return [right - left for left, right in zip($ns, $ns[1:])]
=====
@ nums
> compute the moving average of a list of $ns | average a list of $ns over a sliding window
? moving_average([2, 4, 6, 8], 2) -> [3.0, 5.0, 7.0]
! The slice is the window which starts at each position.
def moving_average($ns: list[$t], size: int) -> list[float]:
    """$doc."""
    starts = range(len($ns) - size + 1)
    return [sum($ns[start : start + size]) / size for start in starts]
=====
@ nums
> compute the average of a list of $ns | return the mean of a list of $ns
? average([2, 4]) -> 3.0 ; average([]) -> 0.0
! An empty list gives 0.0.
def average($ns: list[$t]) -> float:
    """$doc."""
    return sum($ns) / len($ns) if $ns else 0.0
=====
@ nums
> compute the median of a list of $ns | find the middle value of a list of $ns
? median([5, 1, 3]) -> 3 ; median([1, 2, 3, 4]) -> 2.5
! With an even number of $ns it is the mean of the two in the middle.
def median($ns: list[$t]) -> float:
    """$doc."""
    ordered = sorted($ns)
    middle = len(ordered) // 2
    if len(ordered) % 2 == 1:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2
=====
@ nums
> find the range of a list of $ns | compute the difference between the largest and smallest $x in a list
? value_range([3, 9, 5]) -> 6
def value_range($ns: list[$t]) -> $t:
    """$doc."""
    return max($ns) - min($ns)
=====
@ nums
> scale a list of $ns to the range from 0 to 1 | normalize a list of $ns between 0 and 1
? normalize([2, 4, 6]) -> [0.0, 0.5, 1.0] ; normalize([3, 3]) -> [0.0, 0.0]
def normalize($ns: list[$t]) -> list[float]:
    """$doc."""
    low, high = min($ns), max($ns)
    if low == high:
        return [0.0 for _ in $ns]
    return [($x - low) / (high - low) for $x in $ns]
=====
@ nums
> find the largest sum of consecutive $ns in a list | compute the maximum subarray sum of a list of $ns
? max_subarray_sum([2, -5, 4, 3, -1]) -> 7 ; max_subarray_sum([-2, -1]) -> -1
! This is Kadane's algorithm: a sum is extended only if that beats a fresh start.
def max_subarray_sum($ns: list[$t]) -> $t:
    """$doc."""
    best = current = $ns[0]
    for $x in $ns[1:]:
        current = max($x, current + $x)
        best = max(best, current)
    return best
=====
@ nums
> find two $ns in a list that add up to a target | return the indexes of two $ns with a given sum
? two_sum([2, 7, 11], 9) -> (0, 1) ; two_sum([1, 2], 9) -> None
! The dict remembers where each earlier $x was seen.
def two_sum($ns: list[$t], target: $t) -> tuple[int, int] | None:
    """$doc."""
    seen: dict[$t, int] = {}
    for index, $x in enumerate($ns):
        if target - $x in seen:
            return seen[target - $x], index
        seen[$x] = index
    return None
=====
@ nums
> find the $x in a list that is closest to a target | return the nearest $x to a given one
? closest_$x([1, 5, 9], 6) -> 5
def closest_$x($ns: list[$t], target: $t) -> $t:
    """$doc."""
    return min($ns, key=lambda $x: abs($x - target))
=====
@ nums
> find the index of the largest $x in a list | return the position of the maximum of a list of $ns
? index_of_max([3, 9, 5]) -> 1
def index_of_max($ns: list[$t]) -> int:
    """$doc."""
    return max(range(len($ns)), key=lambda index: $ns[index])
=====
@ nums
> find the index of the smallest $x in a list | return the position of the minimum of a list of $ns
? index_of_min([3, 1, 5]) -> 1
def index_of_min($ns: list[$t]) -> int:
    """$doc."""
    return min(range(len($ns)), key=lambda index: $ns[index])
=====
@ nums
> limit every $x in a list to a range | clamp a list of $ns between a low and a high bound
? clamp_$ns([1, 5, 9], 2, 6) -> [2, 5, 6]
def clamp_$ns($ns: list[$t], low: $t, high: $t) -> list[$t]:
    """$doc."""
    return [min(max($x, low), high) for $x in $ns]
=====
@ k
> take the first $k items of a list | return the first $k elements of a list
? first_$k(list(range(30))) -> list(range($k))
! If the list is shorter, all of its items are returned.
def first_$k(items: list[int]) -> list[int]:
    """$doc."""
    return items[:$k]
=====
@ k
> take the last $k items of a list | return the last $k elements of a list
? last_$k(list(range(30))) -> list(range(30 - $k, 30))
! A negative index in a slice counts from the end.
def last_$k(items: list[int]) -> list[int]:
    """$doc."""
    return items[-$k:]
=====
@ small
> find the $k largest numbers in a list | return the top $k numbers of a list
? largest_$k([4, 1, 9, 7, 3, 8]) -> [9, 8, 7, 4, 3, 1][:$k]
! The list is sorted in descending order, and the slice takes the start of it.
def largest_$k(numbers: list[int]) -> list[int]:
    """$doc."""
    return sorted(numbers, reverse=True)[:$k]
=====
@ small
> find the $k smallest numbers in a list | return the lowest $k numbers of a list
? smallest_$k([4, 1, 9, 7, 3, 8]) -> [1, 3, 4, 7, 8, 9][:$k]
def smallest_$k(numbers: list[int]) -> list[int]:
    """$doc."""
    return sorted(numbers)[:$k]
=====
@ k
> take every item of a list with a step of $k | return every $k-th element of a list from the start
? every_$k(list(range(30))) -> list(range(0, 30, $k))
def every_$k(items: list[int]) -> list[int]:
    """$doc."""
    return items[::$k]
=====
@ k
> split a list into chunks of $k | break a list into pieces of $k items each
? chunks_of_$k(list(range($k + 1))) -> [list(range($k)), [$k]]
! The last chunk may be shorter.
def chunks_of_$k(items: list[int]) -> list[list[int]]:
    """$doc."""
    return [items[start : start + $k] for start in range(0, len(items), $k)]
=====
@ k
> create an identity matrix of size $k | build the $k by $k identity matrix
? sum(map(sum, identity_$k())) -> $k
! There are ones on the diagonal and zeros elsewhere.
def identity_$k() -> list[list[int]]:
    """$doc."""
    return [[1 if row == column else 0 for column in range($k)] for row in range($k)]
=====
@ records
> sort a list of $r dicts by $field | order $rs by their $field
? sort_by_$field([{"$field": $b}, {"$field": $a}]) -> [{"$field": $a}, {"$field": $b}]
! `itemgetter` picks the field that is compared.
from operator import itemgetter


def sort_by_$field($rs: list[dict]) -> list[dict]:
    """$doc."""
    return sorted($rs, key=itemgetter("$field"))
=====
@ records
> sort a list of $r dicts by $field in descending order | order $rs from the highest to the lowest $field
? sort_by_${field}_descending([{"$field": $a}, {"$field": $b}]) -> [{"$field": $b}, {"$field": $a}]
def sort_by_${field}_descending($rs: list[dict]) -> list[dict]:
    """$doc."""
    return sorted($rs, key=lambda $r: $r["$field"], reverse=True)
=====
@ records
> group a list of $r dicts by $field | put $rs with the same $field together
? group_by_$field([{"$field": $a}, {"$field": $b}]) -> {$a: [{"$field": $a}], $b: [{"$field": $b}]}
! A `defaultdict` creates the empty list for a new key.
from collections import defaultdict


def group_by_$field($rs: list[dict]) -> dict[$ft, list[dict]]:
    """$doc."""
    groups: dict[$ft, list[dict]] = defaultdict(list)
    for $r in $rs:
        groups[$r["$field"]].append($r)
    return dict(groups)
=====
@ records
> collect the $field of every $r dict in a list | get the $field values from a list of $r dicts
? collect_$field([{"$field": $a}, {"$field": $b}]) -> [$a, $b]
def collect_$field($rs: list[dict]) -> list[$ft]:
    """$doc."""
    return [$r["$field"] for $r in $rs]
=====
@ records
> find the $r dict with a given $field in a list | search a list of $r dicts by $field
? find_by_$field([{"$field": $a}, {"$field": $b}], $b) -> {"$field": $b} ; find_by_$field([], $a) -> None
! It returns `None` if there is no such $r.
def find_by_$field($rs: list[dict], $field: $ft) -> dict | None:
    """$doc."""
    for $r in $rs:
        if $r["$field"] == $field:
            return $r
    return None
=====
@ records
> find the $r dict with the highest $field | return the $r with the maximum $field from a list of dicts
? max_by_$field([{"$field": $a}, {"$field": $c}, {"$field": $b}]) -> {"$field": $c}
def max_by_$field($rs: list[dict]) -> dict:
    """$doc."""
    return max($rs, key=lambda $r: $r["$field"])
=====
@ records
> index a list of $r dicts by $field | build a dict from $field to $r
? index_by_$field([{"$field": $a}]) -> {$a: {"$field": $a}}
def index_by_$field($rs: list[dict]) -> dict[$ft, dict]:
    """$doc."""
    return {$r["$field"]: $r for $r in $rs}
=====
@ dicts
> find the $ek with the highest $ev in a dict of $ds | return the key with the maximum value in a dict of $ds
? highest_$ev({$p: $u, $q: $v, $r: $w}) -> $q
! `max` goes over the keys and compares their values.
def highest_$ev($ds: dict[str, $vt]) -> str:
    """$doc."""
    return max($ds, key=lambda $ek: $ds[$ek])
=====
@ dicts
> find the $ek with the lowest $ev in a dict of $ds | return the key with the minimum value in a dict of $ds
? lowest_$ev({$p: $u, $q: $v, $r: $w}) -> $p
def lowest_$ev($ds: dict[str, $vt]) -> str:
    """$doc."""
    return min($ds, key=lambda $ek: $ds[$ek])
=====
@ dicts
> sort a dict of $ds by $ev | order a dict of $ds by its values
? sort_by_$ev({$q: $v, $p: $u}) -> {$p: $u, $q: $v} ; list(sort_by_$ev({$q: $v, $p: $u})) -> [$p, $q]
! Dicts keep the insertion order, so the result stays sorted.
def sort_by_$ev($ds: dict[str, $vt]) -> dict[str, $vt]:
    """$doc."""
    return dict(sorted($ds.items(), key=lambda pair: pair[1]))
=====
@ dicts
> sort a dict of $ds by $ek | order a dict of $ds by its keys
? list(sort_by_$ek({$p: $u, $q: $v})) -> sorted([$p, $q])
def sort_by_$ek($ds: dict[str, $vt]) -> dict[str, $vt]:
    """$doc."""
    return dict(sorted($ds.items()))
=====
@ dicts
> sum the values in a dict of $ds | compute the total of all values in a dict of $ds
? total_$ev({$p: $u, $q: $v}) -> $u + $v
def total_$ev($ds: dict[str, $vt]) -> $vt:
    """$doc."""
    return sum($ds.values())
=====
@ dicts
> compute the average $ev in a dict of $ds | return the mean of the values in a dict of $ds
? average_$ev({$p: $u, $q: $v}) -> ($u + $v) / 2 ; average_$ev({}) -> 0.0
def average_$ev($ds: dict[str, $vt]) -> float:
    """$doc."""
    return sum($ds.values()) / len($ds) if $ds else 0.0
=====
@ dicts
> keep the entries in a dict of $ds with at least a given $ev | filter a dict of $ds by a minimum $ev
? filter_by_$ev({$p: $u, $q: $v}, $w) -> {$q: $v}
! The dict comprehension looks at each pair of key and value.
def filter_by_$ev($ds: dict[str, $vt], minimum: $vt) -> dict[str, $vt]:
    """$doc."""
    return {$ek: $ev for $ek, $ev in $ds.items() if $ev >= minimum}
=====
@ dicts
> look up the $ev of a $ek in a dict with a default | get a value from a dict of $ds or a default
? get_$ev({$p: $u}, $p, 0) -> $u ; get_$ev({$p: $u}, $q, 0) -> 0
! `get` does not raise a `KeyError` for a missing key.
def get_$ev($ds: dict[str, $vt], $ek: str, default: $vt) -> $vt:
    """$doc."""
    return $ds.get($ek, default)
=====
@ dicts
> invert a dict of $ds | swap the keys and values in a dict of $ds
? invert_$ds({$p: $u, $q: $v}) -> {$u: $p, $v: $q}
! If two keys share a value, the last one wins.
def invert_$ds($ds: dict[str, $vt]) -> dict[$vt, str]:
    """$doc."""
    return {$ev: $ek for $ek, $ev in $ds.items()}
=====
@ dicts
> merge two dicts of $ds by adding the values | combine two dicts of $ds and sum the values of equal keys
? add_$ds({$p: $u}, {$p: $v, $q: $w}) -> {$p: $u + $v, $q: $w}
! It starts with a copy, so neither argument is changed.
def add_$ds(first: dict[str, $vt], second: dict[str, $vt]) -> dict[str, $vt]:
    """$doc."""
    result = dict(first)
    for $ek, $ev in second.items():
        result[$ek] = result.get($ek, 0) + $ev
    return result
=====
@ dicts
> build a dict of $ds from two lists | zip a list of keys and a list of values into a dict of $ds
? make_$ds([$p, $q], [$u, $v]) -> {$p: $u, $q: $v}
! `zip` pairs the keys with the values.
def make_$ds(keys: list[str], values: list[$vt]) -> dict[str, $vt]:
    """$doc."""
    return dict(zip(keys, values))
=====
@ dicts
> find the top n entries in a dict of $ds by $ev | return the n keys with the highest values in a dict of $ds
? top_$ds({$p: $u, $q: $v, $r: $w}, 2) -> [$q, $r]
def top_$ds($ds: dict[str, $vt], n: int) -> list[str]:
    """$doc."""
    return sorted($ds, key=lambda $ek: $ds[$ek], reverse=True)[:n]
=====
@ dicts
> remove a $ek from a dict of $ds | return a dict of $ds without a given key
? remove_$ek({$p: $u, $q: $v}, $p) -> {$q: $v}
def remove_$ek($ds: dict[str, $vt], removed: str) -> dict[str, $vt]:
    """$doc."""
    return {$ek: $ev for $ek, $ev in $ds.items() if $ek != removed}
'''

SINGLE = '''
> merge two dicts | combine two dictionaries into one
? merge_dicts({"a": 1}, {"a": 2, "b": 3}) -> {"a": 2, "b": 3}
! For a key in both dicts the value of the second one is used.
def merge_dicts(first: dict, second: dict) -> dict:
    """$doc."""
    return {**first, **second}
=====
> get a value from a nested dict by a list of keys | follow a path of keys through nested dicts
? get_nested({"a": {"b": 1}}, ["a", "b"]) -> 1 ; get_nested({}, ["x"], 0) -> 0
! The default is returned as soon as a key is missing.
def get_nested(data: dict, keys: list[str], default: object = None) -> object:
    """$doc."""
    current: object = data
    for key in keys:
        if not isinstance(current, dict) or key not in current:
            return default
        current = current[key]
    return current
=====
> flatten a nested dict with dotted keys | turn nested dicts into a flat dict with keys like a.b
? flatten_dict({"a": {"b": 1}, "c": 2}) -> {"a.b": 1, "c": 2}
! The function calls itself for every inner dict.
def flatten_dict(data: dict, prefix: str = "") -> dict[str, object]:
    """$doc."""
    result: dict[str, object] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            result.update(flatten_dict(value, f"{prefix}{key}."))
        else:
            result[f"{prefix}{key}"] = value
    return result
=====
> find the keys that two dicts share | return the common keys of two dictionaries
? common_keys({"a": 1, "b": 2}, {"b": 3}) -> {"b"}
def common_keys(first: dict, second: dict) -> set:
    """$doc."""
    return first.keys() & second.keys()
=====
> find the items in exactly one of two sets | compute the symmetric difference of two sets
? in_one_set({1, 2}, {2, 3}) -> {1, 3}
def in_one_set(first: set[int], second: set[int]) -> set[int]:
    """$doc."""
    return first ^ second
=====
> check whether one set is a subset of another | tell if all items of a set are in another set
? is_subset({1}, {1, 2}) -> True ; is_subset({3}, {1, 2}) -> False
def is_subset(first: set[int], second: set[int]) -> bool:
    """$doc."""
    return first <= second
=====
> check whether two sets are disjoint | tell if two sets have no items in common
? are_disjoint({1}, {2}) -> True ; are_disjoint({1}, {1, 2}) -> False
def are_disjoint(first: set[int], second: set[int]) -> bool:
    """$doc."""
    return first.isdisjoint(second)
=====
> flatten an arbitrarily nested list | flatten a deeply nested list recursively
? flatten_deep([1, [2, [3, []]]]) -> [1, 2, 3]
! Inner lists are flattened by a recursive call.
def flatten_deep(items: list) -> list:
    """$doc."""
    result: list = []
    for item in items:
        if isinstance(item, list):
            result.extend(flatten_deep(item))
        else:
            result.append(item)
    return result
=====
> find the missing number in a list of 0 to n | return the number from 0 to n that a list lacks
? missing_number([0, 1, 3]) -> 2
! The sum of 0 to n is n * (n + 1) / 2, and the difference is the missing number.
def missing_number(numbers: list[int]) -> int:
    """$doc."""
    n = len(numbers)
    return n * (n + 1) // 2 - sum(numbers)
=====
> move all zeros to the end of a list | put the zeros of a list last and keep the other order
? move_zeros([0, 1, 0, 2]) -> [1, 2, 0, 0]
def move_zeros(numbers: list[int]) -> list[int]:
    """$doc."""
    nonzero = [number for number in numbers if number != 0]
    return nonzero + [0] * (len(numbers) - len(nonzero))
=====
> find the longest increasing run in a list | return the length of the longest increasing run of numbers
? longest_run([1, 2, 1, 2, 3]) -> 3 ; longest_run([]) -> 0
def longest_run(numbers: list[int]) -> int:
    """$doc."""
    best = current = min(len(numbers), 1)
    for left, right in zip(numbers, numbers[1:]):
        current = current + 1 if right > left else 1
        best = max(best, current)
    return best
=====
> find the length of the longest increasing subsequence | compute the longest increasing subsequence length of a list
? longest_increasing([3, 1, 4, 2, 5]) -> 3 ; longest_increasing([]) -> 0
! `tails[i]` is the smallest end of an increasing subsequence of length i + 1.
from bisect import bisect_left


def longest_increasing(numbers: list[int]) -> int:
    """$doc."""
    tails: list[int] = []
    for number in numbers:
        position = bisect_left(tails, number)
        tails[position : position + 1] = [number]
    return len(tails)
=====
> merge overlapping intervals | combine intervals that overlap in a list of pairs
? merge_intervals([(5, 6), (1, 3), (2, 4)]) -> [(1, 4), (5, 6)]
! After sorting, an interval can only overlap the last one of the result.
def merge_intervals(intervals: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """$doc."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged
=====
> compute the product of all other numbers for each number of a list | replace each number in a list by the product of the others
? products_except_self([1, 2, 4]) -> [8, 4, 2]
! The first loop multiplies everything to the left, the second one everything to the right.
def products_except_self(numbers: list[int]) -> list[int]:
    """$doc."""
    result = [1] * len(numbers)
    left = right = 1
    for i in range(len(numbers)):
        result[i] *= left
        left *= numbers[i]
    for i in range(len(numbers) - 1, -1, -1):
        result[i] *= right
        right *= numbers[i]
    return result
=====
> find the best profit from buying and selling a stock once | compute the maximum profit of one buy and one sale in a list of prices
? max_profit([7, 1, 5, 3]) -> 4 ; max_profit([3, 1]) -> 0
def max_profit(prices: list[int]) -> int:
    """$doc."""
    best = 0
    lowest = prices[0]
    for price in prices:
        lowest = min(lowest, price)
        best = max(best, price - lowest)
    return best
=====
> transpose a matrix | swap the rows and columns of a matrix
? transpose([[1, 2], [3, 4], [5, 6]]) -> [[1, 3, 5], [2, 4, 6]]
! `zip(*matrix)` yields the columns.
def transpose(matrix: list[list[int]]) -> list[list[int]]:
    """$doc."""
    return [list(column) for column in zip(*matrix)]
=====
> create an identity matrix of size n | build the n by n identity matrix
? identity_matrix(2) -> [[1, 0], [0, 1]]
def identity_matrix(n: int) -> list[list[int]]:
    """$doc."""
    return [[1 if row == column else 0 for column in range(n)] for row in range(n)]
=====
> create a matrix of zeros | build a zero matrix with a given number of rows and columns
? zero_matrix(2, 3) -> [[0, 0, 0], [0, 0, 0]]
def zero_matrix(rows: int, columns: int) -> list[list[int]]:
    """$doc."""
    return [[0] * columns for _ in range(rows)]
=====
> add two matrices | compute the sum of two matrices
? add_matrices([[1, 2]], [[3, 4]]) -> [[4, 6]]
def add_matrices(first: list[list[int]], second: list[list[int]]) -> list[list[int]]:
    """$doc."""
    return [[a + b for a, b in zip(row, other)] for row, other in zip(first, second)]
=====
> multiply two matrices | compute the product of two matrices
? multiply_matrices([[1, 2]], [[3], [4]]) -> [[11]]
! Each entry is the dot product of a row and a column.
def multiply_matrices(a: list[list[int]], b: list[list[int]]) -> list[list[int]]:
    """$doc."""
    columns = list(zip(*b))
    return [[sum(x * y for x, y in zip(row, column)) for column in columns] for row in a]
=====
> multiply a matrix by a number | scale every entry of a matrix
? scale_matrix([[1, 2], [3, 4]], 2) -> [[2, 4], [6, 8]]
def scale_matrix(matrix: list[list[int]], factor: int) -> list[list[int]]:
    """$doc."""
    return [[value * factor for value in row] for row in matrix]
=====
> compute the sum of each row in a matrix | sum the rows of a matrix
? row_sums([[1, 2], [3, 4]]) -> [3, 7]
def row_sums(matrix: list[list[int]]) -> list[int]:
    """$doc."""
    return [sum(row) for row in matrix]
=====
> compute the sum of each column in a matrix | sum the columns of a matrix
? column_sums([[1, 2], [3, 4]]) -> [4, 6]
def column_sums(matrix: list[list[int]]) -> list[int]:
    """$doc."""
    return [sum(column) for column in zip(*matrix)]
=====
> find the largest value in a matrix | return the maximum of all entries in a matrix
? matrix_max([[1, 9], [3, 4]]) -> 9
def matrix_max(matrix: list[list[int]]) -> int:
    """$doc."""
    return max(max(row) for row in matrix)
=====
> flatten a matrix into a list | put all entries of a matrix in one list row by row
? flatten_matrix([[1, 2], [3, 4]]) -> [1, 2, 3, 4]
def flatten_matrix(matrix: list[list[int]]) -> list[int]:
    """$doc."""
    return [value for row in matrix for value in row]
=====
> get the main diagonal of a square matrix | return the diagonal of a matrix as a list
? diagonal([[1, 2], [3, 4]]) -> [1, 4]
def diagonal(matrix: list[list[int]]) -> list[int]:
    """$doc."""
    return [row[index] for index, row in enumerate(matrix)]
=====
> compute the trace of a square matrix | sum the main diagonal of a matrix
? trace([[1, 2], [3, 4]]) -> 5
def trace(matrix: list[list[int]]) -> int:
    """$doc."""
    return sum(row[index] for index, row in enumerate(matrix))
=====
> rotate a matrix by 90 degrees clockwise | turn a matrix clockwise
? rotate_matrix([[1, 2], [3, 4]]) -> [[3, 1], [4, 2]]
! Reversing the rows and then transposing gives the rotation.
def rotate_matrix(matrix: list[list[int]]) -> list[list[int]]:
    """$doc."""
    return [list(row) for row in zip(*matrix[::-1])]
=====
> list the values of a matrix in spiral order | read a matrix in a clockwise spiral
? spiral_order([[1, 2, 3], [4, 5, 6], [7, 8, 9]]) -> [1, 2, 3, 6, 9, 8, 7, 4, 5]
! It takes the top row, then turns the rest counterclockwise and repeats.
def spiral_order(matrix: list[list[int]]) -> list[int]:
    """$doc."""
    result: list[int] = []
    rest = [list(row) for row in matrix]
    while rest:
        result.extend(rest.pop(0))
        rest = [list(column) for column in zip(*rest)][::-1]
    return result
=====
> check whether a matrix is symmetric | tell if a matrix equals its transpose
? is_symmetric([[1, 2], [2, 1]]) -> True ; is_symmetric([[1, 2], [3, 1]]) -> False
def is_symmetric(matrix: list[list[int]]) -> bool:
    """$doc."""
    return matrix == [list(column) for column in zip(*matrix)]
=====
> check whether brackets are balanced | validate the brackets of a string with a stack
? is_balanced("([]{})") -> True ; is_balanced("(]") -> False ; is_balanced("((") -> False
! Opening brackets go on the stack, and each closing one must match the top.
def is_balanced(text: str) -> bool:
    """$doc."""
    pairs = {")": "(", "]": "[", "}": "{"}
    stack: list[str] = []
    for char in text:
        if char in pairs.values():
            stack.append(char)
        elif char in pairs and (not stack or stack.pop() != pairs[char]):
            return False
    return not stack
=====
> evaluate an expression in postfix notation | compute the value of a reverse Polish expression
? evaluate_postfix("2 3 + 4 *") -> 20
! Numbers are pushed, and each operator replaces the two on top.
def evaluate_postfix(expression: str) -> int:
    """$doc."""
    stack: list[int] = []
    for token in expression.split():
        if token in ("+", "-", "*"):
            right, left = stack.pop(), stack.pop()
            results = {"+": left + right, "-": left - right, "*": left * right}
            stack.append(results[token])
        else:
            stack.append(int(token))
    return stack.pop()
=====
> traverse a graph with breadth-first search | visit the nodes of a graph in BFS order
? bfs({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}, "a") -> ["a", "b", "c", "d"]
! The queue makes sure that nearer nodes are visited first.
from collections import deque


def bfs(graph: dict[str, list[str]], start: str) -> list[str]:
    """$doc."""
    order: list[str] = []
    seen = {start}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        order.append(node)
        for neighbor in graph.get(node, []):
            if neighbor not in seen:
                seen.add(neighbor)
                queue.append(neighbor)
    return order
=====
> traverse a graph with depth-first search | visit the nodes of a graph in DFS order
? dfs({"a": ["b", "c"], "b": ["d"], "c": [], "d": []}, "a") -> ["a", "b", "d", "c"]
! The neighbours are pushed in reverse, so that the first one is visited first.
def dfs(graph: dict[str, list[str]], start: str) -> list[str]:
    """$doc."""
    order: list[str] = []
    stack = [start]
    while stack:
        node = stack.pop()
        if node in order:
            continue
        order.append(node)
        stack.extend(reversed(graph.get(node, [])))
    return order
=====
> find the shortest path between two nodes of a graph | search for the shortest path in an unweighted graph
? shortest_path({"a": ["b", "c"], "b": ["d"], "c": [], "d": []}, "a", "d") -> ["a", "b", "d"] ; shortest_path({"a": []}, "a", "b") -> None
! Breadth-first search reaches the goal on a shortest path first.
from collections import deque


def shortest_path(graph: dict[str, list[str]], start: str, goal: str) -> list[str] | None:
    """$doc."""
    queue = deque([[start]])
    seen = {start}
    while queue:
        path = queue.popleft()
        if path[-1] == goal:
            return path
        for neighbor in graph.get(path[-1], []):
            if neighbor not in seen:
                seen.add(neighbor)
                queue.append([*path, neighbor])
    return None
=====
> compute the shortest distances in a weighted graph with Dijkstra | implement the algorithm of Dijkstra
? dijkstra({"a": {"b": 5, "c": 1}, "c": {"b": 2}}, "a") -> {"a": 0, "c": 1, "b": 3}
! The heap always gives the nearest node that is not final yet.
import heapq


def dijkstra(graph: dict[str, dict[str, int]], start: str) -> dict[str, int]:
    """$doc."""
    distances: dict[str, int] = {}
    heap = [(0, start)]
    while heap:
        distance, node = heapq.heappop(heap)
        if node in distances:
            continue
        distances[node] = distance
        for neighbor, weight in graph.get(node, {}).items():
            heapq.heappush(heap, (distance + weight, neighbor))
    return distances
=====
> sort the nodes of a directed graph topologically | compute a topological order of a graph
? topological_sort({"a": ["b"], "b": ["c"], "c": []}) -> ["a", "b", "c"]
! A node is added after everything that it points to, so the order is reversed at the end.
def topological_sort(graph: dict[str, list[str]]) -> list[str]:
    """$doc."""
    order: list[str] = []
    seen: set[str] = set()

    def visit(node: str) -> None:
        if node in seen:
            return
        seen.add(node)
        for neighbor in graph.get(node, []):
            visit(neighbor)
        order.append(node)

    for node in graph:
        visit(node)
    return order[::-1]
=====
> check whether a directed graph has a cycle | detect a cycle in a directed graph
? has_cycle({"a": ["b"], "b": ["a"]}) -> True ; has_cycle({"a": ["b"], "b": []}) -> False
! A node that is met again on the current path closes a cycle.
def has_cycle(graph: dict[str, list[str]]) -> bool:
    """$doc."""
    done: set[str] = set()

    def visit(node: str, path: set[str]) -> bool:
        if node in path:
            return True
        if node in done:
            return False
        found = any(visit(neighbor, path | {node}) for neighbor in graph.get(node, []))
        done.add(node)
        return found

    return any(visit(node, set()) for node in graph)
=====
> count the connected components of an undirected graph | count the separate parts of a graph
? count_components({1: [2], 2: [1], 3: []}) -> 2
def count_components(graph: dict[int, list[int]]) -> int:
    """$doc."""
    seen: set[int] = set()
    count = 0
    for start in graph:
        if start in seen:
            continue
        count += 1
        stack = [start]
        while stack:
            node = stack.pop()
            if node not in seen:
                seen.add(node)
                stack.extend(graph[node])
    return count
=====
> build an adjacency list from a list of edges | turn edges into a graph dict
? build_graph([("a", "b"), ("b", "c")]) -> {"a": ["b"], "b": ["a", "c"], "c": ["b"]}
def build_graph(edges: list[tuple[str, str]]) -> dict[str, list[str]]:
    """$doc."""
    graph: dict[str, list[str]] = {}
    for left, right in edges:
        graph.setdefault(left, []).append(right)
        graph.setdefault(right, []).append(left)
    return graph
=====
> compute the depth of a binary tree | find the height of a binary tree
? tree_depth(TreeNode(1, TreeNode(2, TreeNode(3)))) -> 3 ; tree_depth(None) -> 0
! A tree is one level deeper than its deeper subtree.
$tree
def tree_depth(root: TreeNode | None) -> int:
    """$doc."""
    if root is None:
        return 0
    return 1 + max(tree_depth(root.left), tree_depth(root.right))
=====
> insert a value into a binary search tree | add a value to a binary search tree
? insert(TreeNode(5), 3).left.value -> 3 ; insert(None, 1).value -> 1
! Smaller values go to the left, all others to the right.
$tree
def insert(root: TreeNode | None, value: int) -> TreeNode:
    """$doc."""
    if root is None:
        return TreeNode(value)
    if value < root.value:
        root.left = insert(root.left, value)
    else:
        root.right = insert(root.right, value)
    return root
=====
> search for a value in a binary search tree | check whether a binary search tree contains a value
? contains(TreeNode(5, TreeNode(3)), 3) -> True ; contains(None, 1) -> False
$tree
def contains(root: TreeNode | None, value: int) -> bool:
    """$doc."""
    while root is not None and root.value != value:
        root = root.left if value < root.value else root.right
    return root is not None
=====
> traverse a binary tree in order | list the values of a binary tree with an inorder traversal
? inorder(TreeNode(2, TreeNode(1), TreeNode(3))) -> [1, 2, 3]
! The left subtree comes first, then the node, then the right subtree.
$tree
def inorder(root: TreeNode | None) -> list[int]:
    """$doc."""
    if root is None:
        return []
    return [*inorder(root.left), root.value, *inorder(root.right)]
=====
> traverse a binary tree in preorder | list the values of a binary tree with a preorder traversal
? preorder(TreeNode(2, TreeNode(1), TreeNode(3))) -> [2, 1, 3]
$tree
def preorder(root: TreeNode | None) -> list[int]:
    """$doc."""
    if root is None:
        return []
    return [root.value, *preorder(root.left), *preorder(root.right)]
=====
> traverse a binary tree in postorder | list the values of a binary tree with a postorder traversal
? postorder(TreeNode(2, TreeNode(1), TreeNode(3))) -> [1, 3, 2]
$tree
def postorder(root: TreeNode | None) -> list[int]:
    """$doc."""
    if root is None:
        return []
    return [*postorder(root.left), *postorder(root.right), root.value]
=====
> traverse a binary tree level by level | list the values of each level of a binary tree
? level_order(TreeNode(2, TreeNode(1), TreeNode(3))) -> [[2], [1, 3]]
$tree
def level_order(root: TreeNode | None) -> list[list[int]]:
    """$doc."""
    levels: list[list[int]] = []
    nodes = [root] if root else []
    while nodes:
        levels.append([node.value for node in nodes])
        nodes = [child for node in nodes for child in (node.left, node.right) if child]
    return levels
=====
> count the nodes of a binary tree | compute the size of a binary tree
? count_nodes(TreeNode(2, TreeNode(1))) -> 2 ; count_nodes(None) -> 0
$tree
def count_nodes(root: TreeNode | None) -> int:
    """$doc."""
    if root is None:
        return 0
    return 1 + count_nodes(root.left) + count_nodes(root.right)
=====
> sum the values of a binary tree | compute the total of all values in a binary tree
? sum_tree(TreeNode(2, TreeNode(1), TreeNode(3))) -> 6
$tree
def sum_tree(root: TreeNode | None) -> int:
    """$doc."""
    if root is None:
        return 0
    return root.value + sum_tree(root.left) + sum_tree(root.right)
=====
> mirror a binary tree | invert a binary tree by swapping left and right
? mirror(TreeNode(2, TreeNode(1))).right.value -> 1
$tree
def mirror(root: TreeNode | None) -> TreeNode | None:
    """$doc."""
    if root is None:
        return None
    return TreeNode(root.value, mirror(root.right), mirror(root.left))
=====
> reverse a linked list | turn a singly linked list around
? reverse_list(Node(1, Node(2))) -> Node(2, Node(1)) ; reverse_list(None) -> None
! Each node is pointed at the node before it.
$node
def reverse_list(head: Node | None) -> Node | None:
    """$doc."""
    previous = None
    while head is not None:
        head.next, previous, head = previous, head, head.next
    return previous
=====
> convert a list to a linked list | build a linked list from a Python list
? to_linked_list([1, 2]) -> Node(1, Node(2)) ; to_linked_list([]) -> None
! It starts at the end, so every new node becomes the head.
$node
def to_linked_list(values: list[int]) -> Node | None:
    """$doc."""
    head = None
    for value in reversed(values):
        head = Node(value, head)
    return head
=====
> convert a linked list to a list | collect the values of a linked list in a Python list
? to_list(Node(1, Node(2))) -> [1, 2] ; to_list(None) -> []
$node
def to_list(head: Node | None) -> list[int]:
    """$doc."""
    values: list[int] = []
    while head is not None:
        values.append(head.value)
        head = head.next
    return values
=====
> find the middle node of a linked list | return the middle of a linked list with two pointers
? find_middle(Node(1, Node(2, Node(3)))).value -> 2
! The fast pointer moves two steps for each step of the slow one.
$node
def find_middle(head: Node | None) -> Node | None:
    """$doc."""
    slow = fast = head
    while fast is not None and fast.next is not None:
        slow = slow.next
        fast = fast.next.next
    return slow
=====
> compute the length of a linked list | count the nodes of a linked list
? list_length(Node(1, Node(2))) -> 2 ; list_length(None) -> 0
$node
def list_length(head: Node | None) -> int:
    """$doc."""
    length = 0
    while head is not None:
        length += 1
        head = head.next
    return length
=====
> detect a loop in a linked list | check whether a linked list has a cycle
? has_loop(Node(1, Node(2))) -> False ; (lambda n: (setattr(n, "next", n), has_loop(n))[1])(Node(1)) -> True
! If there is a loop, the fast pointer meets the slow one.
$node
def has_loop(head: Node | None) -> bool:
    """$doc."""
    slow = fast = head
    while fast is not None and fast.next is not None:
        slow = slow.next
        fast = fast.next.next
        if slow is fast:
            return True
    return False
=====
> a stack | a stack with push, pop and peek | a last-in first-out stack
? (lambda s: (s.push(1), s.push(2), s.pop(), s.peek(), len(s)))(Stack())[2:] -> (2, 1, 1)
! The end of the list is the top of the stack.
class Stack:
    """A last-in first-out stack."""

    def __init__(self) -> None:
        self._items: list[object] = []

    def push(self, item: object) -> None:
        self._items.append(item)

    def pop(self) -> object:
        return self._items.pop()

    def peek(self) -> object:
        return self._items[-1]

    def __len__(self) -> int:
        return len(self._items)
=====
> a queue | a queue with enqueue and dequeue | a first-in first-out queue
? (lambda q: (q.enqueue(1), q.enqueue(2), q.dequeue(), len(q)))(Queue())[2:] -> (1, 1)
! A `deque` removes items from the left in constant time.
from collections import deque


class Queue:
    """A first-in first-out queue."""

    def __init__(self) -> None:
        self._items: deque[object] = deque()

    def enqueue(self, item: object) -> None:
        self._items.append(item)

    def dequeue(self) -> object:
        return self._items.popleft()

    def __len__(self) -> int:
        return len(self._items)
=====
> a priority queue | a priority queue based on a heap
? (lambda q: (q.push("b", 2), q.push("a", 1), q.pop(), len(q)))(PriorityQueue())[2:] -> ("a", 1)
! The item with the lowest priority number comes out first.
import heapq


class PriorityQueue:
    """A queue which returns the item with the lowest priority first."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, str]] = []

    def push(self, item: str, priority: int) -> None:
        heapq.heappush(self._heap, (priority, item))

    def pop(self) -> str:
        return heapq.heappop(self._heap)[1]

    def __len__(self) -> int:
        return len(self._heap)
=====
> an LRU cache | a least recently used cache with get and put
? (lambda c: (c.put("a", 1), c.put("b", 2), c.get("a"), c.put("c", 3), c.get("b")))(LRUCache(2))[2::2] -> (1, None)
! Every access moves the key to the end, so the oldest key is at the front.
from collections import OrderedDict


class LRUCache:
    """A cache which drops the least recently used key when it is full."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._data: OrderedDict[str, object] = OrderedDict()

    def get(self, key: str) -> object:
        if key not in self._data:
            return None
        self._data.move_to_end(key)
        return self._data[key]

    def put(self, key: str, value: object) -> None:
        self._data[key] = value
        self._data.move_to_end(key)
        if len(self._data) > self.capacity:
            self._data.popitem(last=False)
=====
> a singly linked list | a linked list with append and iteration
? (lambda l: (l.append(1), l.append(2), list(l)))(LinkedList())[2] -> [1, 2]
class Node:
    """A node of a linked list."""

    def __init__(self, value: object) -> None:
        self.value = value
        self.next: Node | None = None


class LinkedList:
    """A singly linked list."""

    def __init__(self) -> None:
        self.head: Node | None = None

    def append(self, value: object) -> None:
        if self.head is None:
            self.head = Node(value)
            return
        node = self.head
        while node.next is not None:
            node = node.next
        node.next = Node(value)

    def __iter__(self):
        node = self.head
        while node is not None:
            yield node.value
            node = node.next
=====
> a union-find structure | a disjoint set with find and union
? (lambda u: (u.union(0, 1), u.find(0) == u.find(1), u.find(0) == u.find(2)))(UnionFind(3))[1:] -> (True, False)
! Two items are in the same set if they have the same root.
class UnionFind:
    """A disjoint-set structure."""

    def __init__(self, size: int) -> None:
        self.parent = list(range(size))

    def find(self, item: int) -> int:
        while self.parent[item] != item:
            self.parent[item] = self.parent[self.parent[item]]
            item = self.parent[item]
        return item

    def union(self, first: int, second: int) -> None:
        self.parent[self.find(first)] = self.find(second)
=====
> a trie | a trie with insert and contains | a prefix tree for words
? (lambda t: (t.insert("tea"), t.contains("tea"), t.contains("te")))(Trie())[1:] -> (True, False)
! Each level of the nested dicts stands for one letter, and "$$" marks the end of a word.
class Trie:
    """A prefix tree for words."""

    def __init__(self) -> None:
        self.root: dict = {}

    def insert(self, word: str) -> None:
        node = self.root
        for char in word:
            node = node.setdefault(char, {})
        node["$$"] = {}

    def contains(self, word: str) -> bool:
        node = self.root
        for char in word:
            if char not in node:
                return False
            node = node[char]
        return "$$" in node
'''

DATACLASS = """from __future__ import annotations

from dataclasses import dataclass


@dataclass
class {}:
"""
SHARED = {
    "tree": DATACLASS.format("TreeNode") + '    """A node of a binary tree."""\n\n'
    "    value: int\n    left: TreeNode | None = None\n    right: TreeNode | None = None\n\n",
    "node": DATACLASS.format("Node") + '    """A node of a linked list."""\n\n'
    "    value: int\n    next: Node | None = None\n\n",
}  # fmt: skip


def articles(text: str) -> str:
    """Correct "a" to "an" before the nouns of the tables."""
    return re.sub(r"\b([aA]) (?=(integer|amount|item|order|employee|age)\b)", r"\1n ", text)


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


def build_family(name: str, spec: str) -> Family:
    """Make the family of one block of PARAMETRIC or SINGLE."""
    head, code_lines = {"@": "", ">": "", "?": "", "!": ""}, []
    for line in spec.strip().splitlines():
        if line[:1] in head and line[1:2] == " " and not code_lines:
            head[line[0]] = line[2:]
        else:
            code_lines.append(line)
    table: Table = globals()[head["@"]] if head["@"] else lambda rng: {"key": name}
    code_text = "\n".join(code_lines)
    is_class = re.findall(r"^(def|class) ", code_text, re.M)[-1] == "class"

    def family(rng: Random) -> Task:
        row = {**SHARED, **table(rng)}

        def fill(text: str) -> str:
            return articles(Template(text).safe_substitute(row))

        phrases = [fill(phrase.strip()) for phrase in head[">"].split(" | ")]
        row["doc"] = phrases[0][0].upper() + phrases[0][1:]

        key = f"{name}/{row['key']}" if head["@"] else name
        chance = Random(crc32(key.encode()))
        examples = [fill(e).split(" -> ") for e in head["?"].split(" ; ")]
        code = fill(code_text)
        check = "\n".join(f"assert {call} == {value}, {call}" for call, value in examples)
        intro = outro = ""
        if chance.random() < 0.5 and not is_class:
            w, b = third(phrases[0]), phrases[0]
            intro = chance.choice(INTROS).format(w=w, b=b)
        call, value = examples[0]
        if chance.random() < 0.5:
            shown = shown_value(value)
            usable = not call.startswith("(") and len(call) + len(shown) < 110
            example = f"For example, `{call}` returns `{shown}`." if usable else ""
            outro = chance.choice([text for text in (example, fill(head["!"])) if text] or [""])

        old, args, annotated = re.findall(
            r"^(?:def|class) (\w+)(\(([^)]*)\))?", code, re.M)[-1]  # fmt: skip
        names = re.findall(r"(?:^|, )(\w+)(?=:)", annotated)
        new = old
        b = rng.choice(phrases)
        if rng.random() < 0.35:
            if rng.random() < 0.35:
                new = "My" + old if is_class else rng.choice(ALIASES).format(old)
            ask = rng.choice(NAMED_CLASS_ASKS if is_class else NAMED_ASKS)
        else:
            ask = rng.choice(CLASS_ASKS if is_class else ASKS)
        kind = "class" if is_class else "function"
        prompt = ask.format(k=kind, b=b, w=third(b), n=new, s=f"{new}({', '.join(names)})")
        prompt = prompt[0].upper() + prompt[1:] if rng.random() < 0.3 else prompt
        if new != old:
            pattern = rf"\b{old}\b" if is_class else rf"\b{old}\b(?=\()"
            code, check, outro = (re.sub(pattern, new, text) for text in (code, check, outro))
        return Task(key, prompt, code, intro, outro, check)

    return family


def family_name(spec: str) -> str:
    """Return a name made from the defined function: "keep_$tag" gives "collections/keep"."""
    name = re.findall(r"^(?:def|class) ([\w${}]+)", spec, re.M)[-1]
    return "collections/" + re.sub(r"_?\$\{?\w+\}?", lambda m: "", name).strip("_")


FAMILIES: dict[str, Family] = {}
for _spec in [*PARAMETRIC.split("\n=====\n"), *SINGLE.split("\n=====\n")]:
    _name = family_name(_spec)
    _table = re.match(r"\s*@ (\w+)", _spec)
    if _name in FAMILIES or _name == "collections/":
        _name = f"{_name}_{_table[1] if _table else 'plain'}".replace("/_", "/")
    while _name in FAMILIES:
        _name += "_2"
    FAMILIES[_name] = build_family(_name, _spec)
