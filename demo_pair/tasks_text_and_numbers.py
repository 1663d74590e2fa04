"""Families of small tasks on strings, numbers and mathematics."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from zlib import crc32

from task import Family, Task


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


WORDINGS = (
    "Write a function that {does}.",
    "Write a Python function to {do}.",
    "Write a Python function that {does}.",
    "write a python function that {does}",
    "python function to {do}",
    "How do I {do} in Python?",
    "how can i {do} in python?",
    "I need a function which {does}.",
    "Please write a function to {do}.",
    "Could you give me a function that {does}?",
    "Show me how to {do} in Python.",
    "I want to {do}. Can you write the function?",
)
SIGNED = (
    "Can you implement `{sig}`? It should {do}.",
    "Define `{sig}` that {does}.",
    "Implement `{sig}` to {do}.",
    "Write a function `{sig}` that {does}.",
    "write {sig} which {does}",
    "Please write `{sig}`, a Python function that {does}.",
)
NAMED = (
    "Write a function called `{name}` that {does}.",
    "Create a function named {name} to {do}.",
    "i need a function {name} that {does}",
    "Write a Python function `{name}` which {does}.",
)
INTROS = ("Here is a function that {does}:", "This function {does}:", "", "")
OTHER_NAMES = ("solve", "solution", "f", "func", "helper", "my_function", "compute", "run", "process", "{}_fn", "my_{}")
OTHER_ARGUMENTS = {
    "text": ("s", "string", "sentence", "value"),
    "n": ("num", "number", "x"),
    "number": ("n", "num", "x"),
    "numbers": ("values", "nums", "data"),
    "value": ("x", "amount", "quantity"),
}


def third_person(phrase: str) -> str:
    def inflect(verb: str) -> str:
        if verb.endswith(("s", "sh", "ch", "x")):
            return verb + "es"
        return verb[:-1] + "ies" if re.search("[^aeiou]y$", verb) else verb + "s"

    first, _, rest = phrase.partition(" ")
    rest = re.sub(r"([a-z]+)\^", lambda match: inflect(match[1]), rest)
    return f"{inflect(first)} {rest}"


def render(rng: Random, family: str, key: str, spec: Spec) -> Task:
    do, does = spec.phrase.replace("^", ""), third_person(spec.phrase)
    name, params, body = spec.name, spec.params, spec.body
    kind = rng.choice(("plain", "plain", "plain", "signed", "signed", "named"))
    if kind != "plain" and rng.random() < 0.4:
        name = rng.choice(OTHER_NAMES).format(name)
    if kind == "signed" and rng.random() < 0.4:
        old = re.split(r"\W", params)[0]
        used = set(re.findall(r"\w+", f"{params} {body} {spec.before}"))
        free = [new for new in OTHER_ARGUMENTS.get(old, ()) if new not in used]
        if free and not re.search(rf"\b{old}\b", do):
            new = rng.choice(free)
            params, body = (re.sub(rf"\b{old}\b", new, source) for source in (params, body))
    arguments = ", ".join(re.findall(r"(\w+): ", params))
    wordings = {"plain": WORDINGS, "signed": SIGNED, "named": NAMED}[kind]
    prompt = rng.choice(wordings).format(do=do, does=does, sig=f"{name}({arguments})", name=name)
    lines = [f'"""{do[0].upper()}{do[1:]}."""', *body.strip("\n").split("\n")]
    block = "\n".join(f"    {line}" if line else "" for line in lines)
    before = f"{spec.before.strip()}\n\n\n" if spec.before else ""
    code = f"{before}def {name}({params}) -> {spec.returns}:\n{block}"
    style = crc32(family.encode())
    outro = spec.note
    if not outro and style & 4 and spec.examples:
        outro = f"For example, `FN({spec.examples[0][0]})` returns `{spec.examples[0][1]}`."
    checks = [spec.check] if spec.check else []
    for args, result in spec.examples:
        is_float = re.fullmatch(r"-?\d+\.\d+", result)
        checks.append(f"assert abs(FN({args}) - {result}) < 1e-6" if is_float else f"assert FN({args}) == {result}")
    code, outro, check = (re.sub(r"\bFN\b", name, source) for source in (code, outro, "\n".join(checks)))
    return Task(f"{family}/{key}" if key else family, prompt, code, INTROS[style % 4].format(does=does), outro, check)


def lit(value: object) -> str:
    return repr(value).replace("'", '"')


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


PRIME_HELPER = '''def is_prime(n: int) -> bool:
    """Check whether a number is prime."""
    return n > 1 and all(n % divisor for divisor in range(2, int(n**0.5) + 1))'''

# Numbers that satisfy a condition: slug -> (noun, condition on X).
NUMBERS: dict[str, tuple[str, str]] = {
    "even": ("even numbers", "X % 2 == 0"),
    "odd": ("odd numbers", "X % 2 == 1"),
    "positive": ("positive numbers", "X > 0"),
    "negative": ("negative numbers", "X < 0"),
    "nonzero": ("nonzero numbers", "X != 0"),
    "prime": ("prime numbers", "is_prime(X)"),
    "single_digit": ("single-digit numbers", "-10 < X < 10"),
    "two_digit": ("two-digit numbers", "10 <= abs(X) <= 99"),
    "palindromic": ("palindromic numbers", "str(X) == str(X)[::-1]"),
    **{f"divisible_by_{k}": (f"numbers divisible by {k}", f"X % {k} == 0") for k in range(3, 14)},
    **{f"not_divisible_by_{k}": (f"numbers not divisible by {k}", f"X % {k} != 0") for k in range(3, 8)},
    **{f"greater_than_{k}": (f"numbers greater than {k}", f"X > {k}") for k in (5, 10, 20, 25, 50, 100)},
    **{f"less_than_{k}": (f"numbers less than {k}", f"X < {k}") for k in (5, 10, 20, 25, 50, 100)},
    **{f"ending_in_{k}": (f"numbers ending in {k}", f"abs(X) % 10 == {k}") for k in range(1, 10)},
    **{
        f"divisible_by_{a}_or_{b}": (f"numbers divisible by {a} or {b}", f"X % {a} == 0 or X % {b} == 0")
        for a, b in ((2, 3), (3, 5), (3, 7), (5, 7), (2, 7), (4, 6))
    },
}
SAMPLE = [4, -7, 12, 31, 0, 55, 9, 126, -30, 2, 98, 63]


def is_prime(n: int) -> bool:
    return n > 1 and all(n % divisor for divisor in range(2, n))


def holds(condition: str, x: int) -> bool:
    return eval(re.sub(r"\bX\b", f"({x})", condition), {"is_prime": is_prime})


def product(values: list[int]) -> int:
    result = 1
    for value in values:
        result *= value
    return result


# Aggregates: op -> (phrase, returns, body, reference); N is the noun, C the generator, IF its condition.
AGGREGATES: dict[str, tuple[str, str, str, Callable[[list[int]], object]]] = {
    "sum": ("add up the N", "int", "return sum(C)", sum),
    "count": ("count the N", "int", "return sum(1 for number in SRC if IF)", len),
    "product": ("multiply the N", "int", "return math.prod(C)", product),
    "average": (
        "compute the average of the N",
        "float",
        "matching = [C]\nreturn sum(matching) / len(matching) if matching else 0.0",
        lambda values: round(sum(values) / len(values), 9) if values else 0.0,
    ),
    "largest": (
        "find the largest of the N",
        "int | None",
        "matching = [C]\nreturn max(matching, default=None)",
        lambda v: max(v, default=None),
    ),
    "smallest": (
        "find the smallest of the N",
        "int | None",
        "matching = [C]\nreturn min(matching, default=None)",
        lambda values: min(values, default=None),
    ),
    "list": ("list the N", "list[int]", "return [C]", list),
    "sum_of_squares": (
        "add up the squares of the N",
        "int",
        "return sum(number**2 for number in SRC if IF)",
        lambda values: sum(value * value for value in values),
    ),
}


def numbers_where(source: str) -> Callable[[Random], tuple[str, Spec]]:
    where, params, iterable, suffix = {
        "list": (" in a list", "numbers: list[int]", "numbers", ""),
        "up_to": (" from 1 to n", "n: int", "range(1, n + 1)", "_up_to"),
        "between": (" between start and end, inclusive", "start: int, end: int", "range(start, end + 1)", "_between"),
    }[source]
    args, domain = {"list": (lit(SAMPLE), SAMPLE), "up_to": ("30", range(1, 31)), "between": ("2, 20", range(2, 21))}[
        source
    ]

    def build(rng: Random) -> tuple[str, Spec]:
        op, slug = rng.choice(list(AGGREGATES)), rng.choice(list(NUMBERS))
        if source != "list":
            while slug in ("positive", "negative", "nonzero"):
                slug = rng.choice(list(NUMBERS))
        phrase, returns, body, reference = AGGREGATES[op]
        noun, condition = NUMBERS[slug]
        body = body.replace("C", "number for number in SRC if IF") if "C)" in body or "C]" in body else body
        body = body.replace("SRC", iterable).replace("IF", condition.replace("X", "number"))
        values = [x for x in (SAMPLE[:6] if source == "list" else domain) if holds(condition, x)]
        before = PRIME_HELPER if slug == "prime" else ""
        before = "\n\n\n".join(part for part in ("import math" * (op == "product"), before) if part)
        args_used = lit(SAMPLE[:6]) if source == "list" else args
        return f"{op}/{slug}", Spec(
            f"{op}_{slug}{suffix}", params, returns, phrase.replace("N", noun) + where, body,
            ((args_used, lit(reference(values))),), before,
        )  # fmt: skip

    return build


def filter_numbers(rng: Random) -> tuple[str, Spec]:
    slug = rng.choice(list(NUMBERS))
    noun, condition = NUMBERS[slug]
    test = condition.replace("X", "number")
    negated = f"not ({test})" if " or " in test else f"not {test}"
    for old, new in ((" == ", " != "), (" != ", " == "), (" > ", " <= "), (" < ", " >= ")):
        if test.count(old) == 1 and "or" not in test.split():
            negated = test.replace(old, new)
            break
    op, name, phrase, returns, body, result = rng.choice((
        ("any", f"has_{slug}", f"check whether a list contains any {noun}", "bool",
         f"return any({test} for number in numbers)", any(holds(condition, x) for x in SAMPLE[:6])),
        ("only", f"only_{slug}", f"check whether a list contains only {noun}", "bool",
         f"return all({test} for number in numbers)", all(holds(condition, x) for x in SAMPLE[:6])),
        ("remove", f"remove_{slug}", f"remove the {noun} from a list", "list[int]",
         f"return [number for number in numbers if {negated}]", [x for x in SAMPLE[:6] if not holds(condition, x)]),
        ("first", f"first_{slug}", f"find the first of the {noun} in a list, or None", "int | None",
         f"return next((number for number in numbers if {test}), None)",
         next((x for x in SAMPLE[:6] if holds(condition, x)), None)),
        ("zero", f"zero_out_{slug}", f"replace the {noun} in a list with zero", "list[int]",
         f"return [0 if {test} else number for number in numbers]", [0 if holds(condition, x) else x for x in SAMPLE[:6]]),
        ("split", f"split_{slug}", f"split a list into the {noun} and the rest", "tuple[list[int], list[int]]",
         f"matching = [number for number in numbers if {test}]\n"
         f"rest = [number for number in numbers if {negated}]\nreturn matching, rest",
         ([x for x in SAMPLE[:6] if holds(condition, x)], [x for x in SAMPLE[:6] if not holds(condition, x)])),
    ))  # fmt: skip
    before = PRIME_HELPER if slug == "prime" else ""
    return f"{op}/{slug}", Spec(
        name, "numbers: list[int]", returns, phrase, body, ((lit(SAMPLE[:6]), lit(result)),), before
    )


# Characters of a kind: slug -> (noun, condition on char, its import).
CHARS: dict[str, tuple[str, str, str]] = {
    "vowels": ("vowels", 'char.lower() in "aeiou"', ""),
    "consonants": ("consonants", 'char.isalpha() and char.lower() not in "aeiou"', ""),
    "letters": ("letters", "char.isalpha()", ""),
    "digits": ("digits", "char.isdigit()", ""),
    "uppercase": ("uppercase letters", "char.isupper()", ""),
    "lowercase": ("lowercase letters", "char.islower()", ""),
    "spaces": ("spaces", 'char == " "', ""),
    "whitespace": ("whitespace characters", "char.isspace()", ""),
    "punctuation": ("punctuation characters", "char in string.punctuation", "import string"),
    "alphanumeric": ("letters and digits", "char.isalnum()", ""),
    "symbols": ("characters that are not letters or digits", "not char.isalnum()", ""),
    "commas": ("commas", 'char == ","', ""),
    "hyphens": ("hyphens", 'char == "-"', ""),
    "even_digits": ("even digits", 'char in "02468"', ""),
    "odd_digits": ("odd digits", 'char in "13579"', ""),
    **{f"{c}s": (f'letters "{c}"', f'char == "{c}"', "") for c in "abcdefghijklmnopqrstuvwxyz"},
}
CHAR_OPS: dict[str, tuple[str, str, str, str]] = {
    "count": ("count the N in a string", "int", "return sum(1 for char in text if IF)", ""),
    "remove": ("remove the N from a string", "str", 'return "".join(char for char in text if not (IF))', ""),
    "keep": ("keep only the N of a string", "str", 'return "".join(char for char in text if IF)', ""),
    "has": ("check whether a string contains any N", "bool", "return any(IF for char in text)", ""),
    "only": ("check whether a string contains only N", "bool", "return bool(text) and all(IF for char in text)", ""),
    "list": ("list the N in a string", "list[str]", "return [char for char in text if IF]", ""),
    "positions_of": (
        "find the positions of the N in a string",
        "list[int]",
        "return [index for index, char in enumerate(text) if IF]",
        "",
    ),
    "mask": ("replace the N in a string with asterisks", "str", 'return "".join("*" if IF else char for char in text)', ""),
    "double": ("double the N in a string", "str", 'return "".join(char * 2 if IF else char for char in text)', ""),
    "distinct": (
        "count the different N in a string",
        "int",
        "return len({char for char in text if IF})",
        "",
    ),
    "share_of": (
        "compute the fraction of N in a string",
        "float",
        "if not text:\n    return 0.0\nreturn sum(1 for char in text if IF) / len(text)",
        "",
    ),
    "first_of": ("find the index of the first of the N in a string, or -1", "int",
                 "for index, char in enumerate(text):\n    if IF:\n        return index\nreturn -1", ""),
}  # fmt: skip


def characters(rng: Random) -> tuple[str, Spec]:
    op, slug = rng.choice(list(CHAR_OPS)), rng.choice(list(CHARS))
    phrase, returns, body, _ = CHAR_OPS[op]
    noun, test, before = CHARS[slug]
    simple = re.fullmatch(r'char == (".")', test)
    if simple and op == "count":
        body = f"return text.count({simple[1]})"
    elif simple and op == "remove":
        body = f'return text.replace({simple[1]}, "")'
    elif simple and op == "first_of":
        body = f"return text.find({simple[1]})"
    elif simple and op == "has":
        body = f"return {simple[1]} in text"
    elif op == "remove" and " and " not in test:
        test = test.replace("==", "!=") if "==" in test else test.replace(" in ", " not in ")
        if "!=" in test or " not in " in test:
            body = body.replace("not (IF)", "IF")
        else:
            body = body.replace("not (IF)", test[4:] if test.startswith("not ") else f"not {test}")
    body = body.replace("IF", test)
    sample = f"{slug[0].upper()}{slug[0]} Ab-3, e4!"
    condition = CHARS[slug][1]
    hits = [i for i, char in enumerate(sample) if eval(condition, {"char": char, "string": __import__("string")})]
    chosen = [sample[i] for i in hits]
    result = {
        "count": len(hits), "remove": "".join(c for i, c in enumerate(sample) if i not in hits), "keep": "".join(chosen),
        "has": bool(hits), "only": len(hits) == len(sample), "list": chosen, "positions_of": hits,
        "mask": "".join("*" if i in hits else c for i, c in enumerate(sample)),
        "double": "".join(c * 2 if i in hits else c for i, c in enumerate(sample)), "distinct": len(set(chosen)),
        "share_of": round(len(hits) / len(sample), 9), "first_of": hits[0] if hits else -1,
    }[op]  # fmt: skip
    return f"{op}/{slug}", Spec(f"{op}_{slug}", "text: str", returns, phrase.replace("N", noun), body,
                                ((lit(sample), lit(result)),), before)  # fmt: skip


LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS: dict[str, tuple[str, str]] = {
    **{f"starting_with_{c}": (f'words starting with "{c}"', f'word.lower().startswith("{c}")') for c in LETTERS},
    **{f"ending_with_{c}": (f'words ending with "{c}"', f'word.lower().endswith("{c}")') for c in LETTERS},
    **{f"containing_{c}": (f'words containing "{c}"', f'"{c}" in word.lower()') for c in LETTERS},
    **{f"longer_than_{k}": (f"words longer than {plural(k, 'letter')}", f"len(word) > {k}") for k in range(2, 11)},
    **{f"shorter_than_{k}": (f"words shorter than {plural(k, 'letter')}", f"len(word) < {k}") for k in range(3, 11)},
    **{f"of_{k}_letters": (f"words of exactly {k} letters", f"len(word) == {k}") for k in range(2, 11)},
    "capitalized": ("capitalized words", "word[0].isupper()"),
    "palindromic": ("words that are palindromes", "word.lower() == word.lower()[::-1]"),
    "numeric": ("words made of digits", "word.isdigit()"),
    "starting_with_vowel": ("words starting with a vowel", 'word[0].lower() in "aeiou"'),
    "of_even_length": ("words of even length", "len(word) % 2 == 0"),
    "of_odd_length": ("words of odd length", "len(word) % 2 == 1"),
}
WORD_OPS = {
    "count": ("count the N in a text", "int", "return sum(1 for word in text.split() if IF)", len),
    "list": ("list the N in a text", "list[str]", "return [word for word in text.split() if IF]", list),
    "longest": ("find the longest of the N in a text", "str",
                'return max((word for word in text.split() if IF), key=len, default="")',
                lambda words: max(words, key=len, default="")),
    "first": ("find the first of the N in a text", "str | None",
              "return next((word for word in text.split() if IF), None)", lambda words: words[0] if words else None),
    "has": ("check whether a text contains any N", "bool", "return any(IF for word in text.split())", bool),
    "join": ("join the N of a text with commas", "str", 'return ", ".join(word for word in text.split() if IF)', ", ".join),
    "upper": ("list the N in a text in upper case", "list[str]",
              "return [word.upper() for word in text.split() if IF]", lambda words: [word.upper() for word in words]),
}  # fmt: skip


def words_where(rng: Random) -> tuple[str, Spec]:
    op, slug = rng.choice(list(WORD_OPS)), rng.choice(list(WORDS))
    phrase, returns, body, reference = WORD_OPS[op]
    noun, test = WORDS[slug]
    sample = "Anna sent 42 blue kites to my friend Max"
    found = [word for word in sample.split() if eval(test, {"word": word})]
    return f"{op}/{slug}", Spec(f"{op}_words_{slug}", "text: str", returns, phrase.replace("N", noun),
                                body.replace("IF", test), ((lit(sample), lit(reference(found))),))  # fmt: skip


# Units: quantity -> {unit: size in a base unit}.
UNITS: dict[str, dict[str, float]] = {
    "length": {"millimeters": 0.001, "centimeters": 0.01, "meters": 1, "kilometers": 1000, "inches": 0.0254,
               "feet": 0.3048, "yards": 0.9144, "miles": 1609.344},
    "mass": {"milligrams": 0.001, "grams": 1, "kilograms": 1000, "tonnes": 1000000, "ounces": 28.349523125,
             "pounds": 453.59237},
    "time": {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400, "weeks": 604800},
    "volume": {"milliliters": 0.001, "liters": 1, "cubic_meters": 1000, "pints": 0.473176473, "gallons": 3.785411784},
    "data": {"bits": 1, "bytes": 8, "kilobytes": 8000, "megabytes": 8000000, "gigabytes": 8000000000},
    "energy": {"joules": 1, "kilojoules": 1000, "calories": 4.184, "kilocalories": 4184, "kilowatt_hours": 3600000},
    "pressure": {"pascals": 1, "kilopascals": 1000, "bar": 100000, "atmospheres": 101325},
    "area": {"square_meters": 1, "square_kilometers": 1000000, "hectares": 10000, "acres": 4046.8564224,
             "square_feet": 0.09290304},
}  # fmt: skip


def unit_conversion(rng: Random) -> tuple[str, Spec]:
    units = UNITS[rng.choice(list(UNITS))]
    a, b = rng.sample(list(units), 2)
    x, y = units[a], units[b]
    steps = (f" * {x}" if x != 1 else "") + (f" / {y}" if y != 1 else "")
    if x > y and (x / y) == round(x / y):
        steps = f" * {round(x / y)}"
    elif y > x and abs(y / x - round(y / x)) < 1e-9:
        steps = f" / {round(y / x)}"
    spoken = [unit.replace("_", " ") for unit in (a, b)]
    return f"{a}/{b}", Spec(f"{a}_to_{b}", "value: float", "float", f"convert {spoken[0]} to {spoken[1]}", f"return value{steps}",
                            (), check=f"assert abs(FN(3) / {3 * x / y!r} - 1) < 1e-9")  # fmt: skip


TEMPERATURES = {
    ("celsius", "fahrenheit"): "value * 9 / 5 + 32", ("fahrenheit", "celsius"): "(value - 32) * 5 / 9",
    ("celsius", "kelvin"): "value + 273.15", ("kelvin", "celsius"): "value - 273.15",
    ("fahrenheit", "kelvin"): "(value - 32) * 5 / 9 + 273.15", ("kelvin", "fahrenheit"): "(value - 273.15) * 9 / 5 + 32",
}  # fmt: skip
FREEZING = {"celsius": 0.0, "fahrenheit": 32.0, "kelvin": 273.15}


def temperature(rng: Random) -> tuple[str, Spec]:
    a, b = rng.choice(list(TEMPERATURES))
    phrase = f"convert a temperature from {a.title()} to {b.title()}"
    return f"{a}/{b}", Spec(f"{a}_to_{b}", "value: float", "float", phrase, f"return {TEMPERATURES[a, b]}",
                            ((lit(FREEZING[a]), lit(FREEZING[b])),))  # fmt: skip


SHAPES: tuple[tuple[str, str, str, str, str, str], ...] = (
    ("area", "circle", "radius", "math.pi * radius**2", "2", "12.566370614"),
    ("circumference", "circle", "radius", "2 * math.pi * radius", "1", "6.283185307"),
    ("diameter", "circle", "radius", "2 * radius", "3", "6"),
    ("area", "rectangle", "width height", "width * height", "3, 4", "12"),
    ("perimeter", "rectangle", "width height", "2 * (width + height)", "3, 4", "14"),
    ("diagonal", "rectangle", "width height", "math.hypot(width, height)", "3, 4", "5.0"),
    ("area", "square", "side", "side**2", "4", "16"),
    ("perimeter", "square", "side", "4 * side", "4", "16"),
    ("diagonal", "square", "side", "side * math.sqrt(2)", "1", "1.414213562"),
    ("area", "triangle", "base height", "base * height / 2", "6, 4", "12.0"),
    ("perimeter", "triangle", "a b c", "a + b + c", "3, 4, 5", "12"),
    ("hypotenuse", "right triangle", "a b", "math.hypot(a, b)", "3, 4", "5.0"),
    ("area", "trapezoid", "a b height", "(a + b) / 2 * height", "2, 4, 3", "9.0"),
    ("area", "parallelogram", "base height", "base * height", "5, 2", "10"),
    ("area", "rhombus", "p q", "p * q / 2", "4, 6", "12.0"),
    ("area", "ellipse", "a b", "math.pi * a * b", "1, 2", "6.283185307"),
    ("perimeter", "regular polygon", "sides length", "sides * length", "6, 2", "12"),
    ("volume", "cube", "side", "side**3", "3", "27"),
    ("surface area", "cube", "side", "6 * side**2", "2", "24"),
    ("volume", "box", "width height depth", "width * height * depth", "2, 3, 4", "24"),
    (
        "surface area",
        "box",
        "width height depth",
        "2 * (width * height + height * depth + width * depth)",
        "1, 2, 3",
        "22",
    ),
    ("volume", "sphere", "radius", "4 / 3 * math.pi * radius**3", "1", "4.18879020"),
    ("surface area", "sphere", "radius", "4 * math.pi * radius**2", "1", "12.566370614"),
    ("volume", "cylinder", "radius height", "math.pi * radius**2 * height", "1, 2", "6.283185307"),
    ("surface area", "cylinder", "radius height", "2 * math.pi * radius * (radius + height)", "1, 1", "12.566370614"),
    ("volume", "cone", "radius height", "math.pi * radius**2 * height / 3", "1, 3", "3.141592654"),
    ("volume", "pyramid", "base_area height", "base_area * height / 3", "6, 4", "8.0"),
)


def shape(rng: Random) -> tuple[str, Spec]:
    measure, solid, names, formula, args, result = rng.choice(SHAPES)
    name = f"{solid}_{measure}".replace(" ", "_")
    article = "an" if solid[0] in "aeiou" else "a"
    typed = ", ".join(f"{p}: {'int' if p == 'sides' else 'float'}" for p in names.split())
    before = "import math" if "math." in formula else ""
    return name, Spec(name, typed, "float", f"compute the {measure} of {article} {solid}", f"return {formula}",
                      ((args, result),), before)  # fmt: skip


DIGIT_KINDS = {"": "True", "even ": "digit % 2 == 0", "odd ": "digit % 2 == 1", "nonzero ": "digit != 0",
               **{f"big (over {k}) ": f"digit > {k}" for k in (4, 5, 6)}}  # fmt: skip
DIGIT_OPS = {"sum": ("add up", sum), "product": ("multiply", product), "count": ("count", len), "list": ("list", list)}


def digits(rng: Random) -> tuple[str, Spec]:
    kind, op = rng.choice(list(DIGIT_KINDS)), rng.choice(list(DIGIT_OPS))
    verb, reference = DIGIT_OPS[op]
    test = DIGIT_KINDS[kind]
    slug = re.sub(r"\W+", "_", kind.replace("big (over ", "over_").replace(")", "")).strip("_")
    made = "digit for digit in digits" + (f" if {test}" if kind else "")
    inner = made if kind else "digits"
    value = {"sum": f"sum({inner})", "product": f"math.prod({inner})", "list": f"[{made}]" if kind else "digits",
             "count": f"sum(1 {made[6:]})" if kind else "len(digits)"}[op]  # fmt: skip
    found = [d for d in (4, 7, 0, 1, 6) if eval(test, {"digit": d})]
    noun = f"digits over {slug[5:]}" if slug.startswith("over") else f"{kind}digits"
    name = f"{op}_{slug}_digits" if slug else f"{op}_digits"
    body = f"digits = [int(char) for char in str(abs(n))]\nreturn {value}"
    return f"{op}/{slug}", Spec(name, "n: int", "int" if op != "list" else "list[int]", f"{verb} the {noun} of a number", body,
                                (("47016", lit(reference(found))),), "import math" if op == "product" else "")  # fmt: skip


def divisible(rng: Random) -> tuple[str, Spec]:
    a = rng.randint(2, 12)
    link = rng.choice(("", "and", "or", "but not"))
    b = rng.choice([k for k in range(2, 13) if k % a and a % k])
    if not link:
        body, key, phrase = f"return n % {a} == 0", f"divisible_by_{a}", f"divisible by {a}"
    else:
        second = f"n % {b} != 0" if link == "but not" else f"n % {b} == 0"
        body = f"return n % {a} == 0 {link.split()[0].replace('but', 'and')} {second}"
        key, phrase = f"divisible_by_{a}_{link.replace(' ', '_')}_{b}", f"divisible by {a} {link} {b}"
    examples = tuple((str(n), str(eval(body[7:], {"n": n}))) for n in (a * b, a, b + 1))
    return key, Spec(f"is_{key}", "n: int", "bool", f"check whether a number is {phrase}", body, examples)


SEQUENCES: dict[str, tuple[str, str]] = {
    "even_numbers": ("positive even numbers", "2 * i"), "odd_numbers": ("odd numbers", "2 * i - 1"),
    "squares": ("square numbers", "i**2"), "cubes": ("cubes", "i**3"),
    "triangular_numbers": ("triangular numbers", "i * (i + 1) // 2"),
    "oblong_numbers": ("oblong numbers", "i * (i + 1)"),
    "pentagonal_numbers": ("pentagonal numbers", "i * (3 * i - 1) // 2"),
    "hexagonal_numbers": ("hexagonal numbers", "i * (2 * i - 1)"),
    **{f"multiples_of_{k}": (f"multiples of {k}", f"{k} * i") for k in range(3, 21)},
    **{f"powers_of_{k}": (f"powers of {k}", f"{k}**i") for k in range(2, 13)},
}  # fmt: skip


def sequence(rng: Random) -> tuple[str, Spec]:
    slug, op = rng.choice(list(SEQUENCES)), rng.choice(("list", "sum", "reversed", "generate"))
    noun, term = SEQUENCES[slug]
    terms = [eval(term, {"i": i}) for i in range(1, 5)]
    name, phrase, returns, body, result = {
        "list": (f"first_{slug}", f"list the first n {noun}", "list[int]", f"return [{term} for i in range(1, n + 1)]", terms),
        "sum": (f"sum_{slug}", f"add up the first n {noun}", "int", f"return sum({term} for i in range(1, n + 1))", sum(terms)),
        "reversed": (f"{slug}_descending", f"list the first n {noun} in descending order", "list[int]",
                     f"return [{term} for i in range(n, 0, -1)]", terms[::-1]),
        "generate": (f"generate_{slug}", f"generate the first n {noun} one by one", "Iterator[int]",
                     f"for i in range(1, n + 1):\n    yield {term}", None),
    }[op]  # fmt: skip
    if op == "generate":
        return f"{op}/{slug}", Spec(name, "n: int", returns, phrase, body, (), "from collections.abc import Iterator",
                                    check=f"assert list(FN(4)) == {terms}")  # fmt: skip
    return f"{op}/{slug}", Spec(name, "n: int", returns, phrase, body, (("4", lit(result)),))


ARITHMETIC = {"add": ("add^ {} to the result", "+"), "subtract": ("subtract^ {} from the result", "-"),
              "multiply": ("multiply^ the result by {}", "*"), "divide": ("divide^ the result by {}", "/")}  # fmt: skip
FIRST_STEP = {"double": ("double a number", "2 * x"), "triple": ("triple a number", "3 * x"),
              "square": ("square a number", "x**2"), "cube": ("cube a number", "x**3"),
              "negate": ("negate a number", "-x"), "halve": ("halve a number", "x / 2")}  # fmt: skip


def two_steps(rng: Random) -> tuple[str, Spec]:
    first, op, k = rng.choice(list(FIRST_STEP)), rng.choice(list(ARITHMETIC)), rng.randint(2, 20)
    phrase, term = FIRST_STEP[first]
    second, sign = ARITHMETIC[op]
    key = f"{first}_and_{op}_{k}"
    expression = f"{term} {sign} {k}"
    result = {"+": lambda v: v + k, "-": lambda v: v - k, "*": lambda v: v * k, "/": lambda v: round(v / k, 9)}[sign]
    return key, Spec(key, "x: float", "float", f"{phrase} and {second.format(k)}", f"return {expression}",
                     (("3", lit(result(eval(term, {"x": 3})))),))  # fmt: skip


TEXT_STEPS: dict[str, tuple[str, str, Callable[[str], str]]] = {
    "strip": ("strip^ whitespace from it", ".strip()", str.strip), "lower": ("convert^ it to lower case", ".lower()", str.lower),
    "upper": ("convert^ it to upper case", ".upper()", str.upper), "reverse": ("reverse^ it", "[::-1]", lambda s: s[::-1]),
    "title": ("convert^ it to title case", ".title()", str.title), "swap_case": ("swap^ its case", ".swapcase()", str.swapcase),
    **{f"{n}_spaces": (f'replace^ its spaces with "{c}"', f'.replace(" ", "{c}")', lambda s, c=c: s.replace(" ", c))
       for n, c in (("underscore", "_"), ("hyphen", "-"), ("dot", "."))},
    "repeat": ("repeat^ it twice", " * 2", lambda s: s * 2),
}  # fmt: skip


def text_pipeline(rng: Random) -> tuple[str, Spec]:
    a, b = rng.sample(list(TEXT_STEPS), 2)
    expression = f"text{TEXT_STEPS[a][1]}"
    expression = f"({expression}){TEXT_STEPS[b][1]}" if a == "repeat" else expression + TEXT_STEPS[b][1]
    result = TEXT_STEPS[b][2](TEXT_STEPS[a][2](" My Dog "))
    phrase = f"take a string, {TEXT_STEPS[a][0]} and then {TEXT_STEPS[b][0]}"
    return f"{a}/{b}", Spec(
        f"{a}_and_{b}", "text: str", "str", phrase, f"return {expression}", (('" My Dog "', lit(result)),)
    )


JOINED = {"commas": ", ", "spaces": " ", "hyphens": "-", "underscores": "_", "slashes": "/", "dots": ".", "semicolons": ";",
          "colons": ":", "pipes": "|", "plus signs": "+"}  # fmt: skip


def separators(rng: Random) -> tuple[str, Spec]:
    plain = {noun: sign.strip() or " " for noun, sign in JOINED.items()}
    a, b = rng.sample(list(JOINED), 2)
    op = rng.choice(("join", "split", "replace", "replace", "replace", "count"))
    x, y = plain[a], plain[b]
    if op == "count" and a in CHARS:  # the family `characters` has these
        op = "replace"
    slug, other = a.replace(" ", "_"), b.replace(" ", "_")
    if op == "join":
        return f"join/{a}", Spec(
            f"join_with_{slug}",
            "words: list[str]",
            "str",
            f"join a list of words with {a}",
            f'return "{JOINED[a]}".join(words)',
            (('["a", "b", "c"]', lit(JOINED[a].join("abc"))),),
        )
    if op == "split":
        body = f'return [part.strip() for part in text.split("{x}")]'
        return f"split/{a}", Spec(
            f"split_at_{slug}",
            "text: str",
            "list[str]",
            f"split a string at {a} and trim^ the parts",
            body,
            ((lit(f"red{x}green"), '["red", "green"]'),),
        )
    if op == "count":
        return f"count/{a}", Spec(
            f"count_{slug}",
            "text: str",
            "int",
            f"count the {a} in a string",
            f'return text.count("{x}")',
            ((lit(f"a{x}b{x}c"), "2"),),
        )
    return f"replace/{a}/{b}", Spec(f"{slug}_to_{other}", "text: str", "str", f"replace {a} with {b} in a string",
                                    f'return text.replace("{x}", "{y}")', ((lit(f"a{x}b"), lit(f"a{y}b")),))  # fmt: skip


CASES: dict[str, tuple[str, str, str]] = {
    "snake": ("snake_case", '"_".join(words)', "my_blue_bird"), "kebab": ("kebab-case", '"-".join(words)', "my-blue-bird"),
    "constant": ("CONSTANT_CASE", '"_".join(words).upper()', "MY_BLUE_BIRD"),
    "pascal": ("PascalCase", '"".join(word.title() for word in words)', "MyBlueBird"),
    "camel": ("camelCase", 'words[0] + "".join(word.title() for word in words[1:])', "myBlueBird"),
    "title": ("Title Case", '" ".join(word.title() for word in words)', "My Blue Bird"),
}  # fmt: skip


def letter_case(rng: Random) -> tuple[str, Spec]:
    a, b = rng.sample(list(CASES), 2)
    split = {"snake": 'name.lower().split("_")', "constant": 'name.lower().split("_")', "kebab": 'name.lower().split("-")',
             "title": "name.lower().split()"}.get(a, 're.sub(r"(?<!^)([A-Z])", r" \\1", name).lower().split()')  # fmt: skip
    split = split.replace("\\\\", "\\")
    return f"{a}/{b}", Spec(f"{a}_to_{b}", "name: str", "str", f"convert {CASES[a][0]} to {CASES[b][0]}",
                            f"words = {split}\nreturn {CASES[b][1]}", ((lit(CASES[a][2]), lit(CASES[b][2])),),
                            "import re" if "re.sub" in split else "")  # fmt: skip


def padding(rng: Random) -> tuple[str, Spec]:
    fill, noun = rng.choice((("0", "zeros"), ("*", "asterisks"), ("-", "hyphens"), (".", "dots"), ("#", "hash signs")))
    side, method = rng.choice((("left", "rjust"), ("right", "ljust"), ("both", "center")))
    k = rng.choice((5, 6, 8, 10, 12, 20))
    where = "on both sides" if side == "both" else f"on the {side}"
    result = getattr("cat", method)(k, fill)
    return f"{side}/{noun}/{k}", Spec(f"pad_{side}", "text: str", "str", f"pad a string with {noun} {where} to {k} characters",
                                      f'return text.{method}({k}, "{fill}")', (('"cat"', lit(result)),))  # fmt: skip


def string_slice(rng: Random) -> tuple[str, Spec]:
    k = rng.randint(2, 9)
    text = "abcdefghijkl"
    spoken = f"{k} characters"
    nth = {2: "second", 3: "third"}.get(k, f"{k}th")
    op, name, phrase, piece = rng.choice((
        ("first", f"first_{k}", f"return the first {spoken} of a string", f"[:{k}]"),
        ("last", f"last_{k}", f"return the last {spoken} of a string", f"[-{k}:]"),
        ("drop", f"drop_first_{k}", f"remove the first {spoken} of a string", f"[{k}:]"),
        ("drop_last", f"drop_last_{k}", f"remove the last {spoken} of a string", f"[:-{k}]"),
        ("every", f"every_{k}", f"return every {nth} character of a string", f"[::{k}]"),
        ("rotate", f"rotate_{k}", f"rotate a string to the left by {spoken}", f"[{k}:] + text[:{k}]"),
        ("truncate", f"truncate_{k}", f"truncate a string to {spoken} and an ellipsis", f' if len(text) <= {k} else text[:{k}] + "..."'),
    ))  # fmt: skip
    result = eval(f"text{piece}", {"text": text})
    return f"{op}/{k}", Spec(name, "text: str", "str", phrase, f"return text{piece}", ((lit(text), lit(result)),))


BASES = {"binary": (2, "b"), "octal": (8, "o"), "decimal": (10, "d"), "hexadecimal": (16, "x")}


def base_conversion(rng: Random) -> tuple[str, Spec]:
    a, b = rng.sample(list(BASES), 2)
    source = "n" if a == "decimal" else f"int(text, {BASES[a][0]})"
    value = source if b == "decimal" else f'format({source}, "{BASES[b][1]}")'
    args = "45" if a == "decimal" else lit(format(45, BASES[a][1]))
    result = "45" if b == "decimal" else lit(format(45, BASES[b][1]))
    return f"{a}/{b}", Spec(f"{a}_to_{b}", "n: int" if a == "decimal" else "text: str", "int" if b == "decimal" else "str",
                            f"convert a {a} number to {b}", f"return {value}", ((args, result),))  # fmt: skip


def fizzbuzz(rng: Random) -> tuple[str, Spec]:
    a, b = rng.choice(((3, 5), (2, 3), (3, 7), (5, 7), (2, 7), (4, 5), (2, 5), (3, 4)))
    x, y = rng.choice((("Fizz", "Buzz"), ("Foo", "Bar"), ("Tick", "Tock"), ("Ping", "Pong")))
    body = (f'if n % {a * b} == 0:\n    return "{x}{y}"\nif n % {a} == 0:\n    return "{x}"\n'
            f'if n % {b} == 0:\n    return "{y}"\nreturn str(n)')  # fmt: skip
    phrase = f'return "{x}" for multiples of {a}, "{y}" for multiples of {b}, "{x}{y}" for both'
    return f"{a}/{b}/{x}", Spec(f"{x}{y}".lower(), "n: int", "str", phrase, body,
                                ((str(a * b), lit(x + y)), (str(a), lit(x)), ("1", '"1"')))  # fmt: skip


def dice(rng: Random) -> tuple[str, Spec]:
    k, sides = rng.randint(1, 6), rng.choice((4, 6, 8, 10, 12, 20))
    kind = rng.choice(("sum", "list", "max"))
    roll = f"random.randint(1, {sides})"
    many = f"{k} {sides}-sided dice" if k > 1 else f"one {sides}-sided die"
    if k == 1:
        return f"one/{sides}", Spec(f"roll_d{sides}", "", "int", f"roll {many}", f"return {roll}", (), "import random",
                                    check=f"assert 1 <= FN() <= {sides}")  # fmt: skip
    body, phrase, returns, check = {
        "sum": (f"return sum({roll} for _ in range({k}))", f"roll {many} and add^ them up", "int", f"{k} <= FN() <= {k * sides}"),
        "list": (f"return [{roll} for _ in range({k})]", f"roll {many} and list^ the results", "list[int]", f"len(FN()) == {k}"),
        "max": (f"return max({roll} for _ in range({k}))", f"roll {many} and keep^ the highest", "int", f"1 <= FN() <= {sides}"),
    }[kind]  # fmt: skip
    return f"{kind}/{k}/{sides}", Spec(f"roll_{k}d{sides}_{kind}", "", returns, phrase, body, (), "import random",
                                       check=f"assert {check}")  # fmt: skip


def percent(rng: Random) -> tuple[str, Spec]:
    k = rng.choice((5, 10, 15, 20, 25, 30, 40, 50, 60, 75))
    op, name, phrase, expression, result = rng.choice((
        ("of", "take_percent", f"compute {k} percent of a number", f"value * {k} / 100", 2.0 * k),
        ("discount", "apply_discount", f"reduce a price by {k} percent", f"value * (100 - {k}) / 100", 200.0 - 2 * k),
        ("raise", "increase", f"increase a number by {k} percent", f"value * (100 + {k}) / 100", 200.0 + 2 * k),
        ("tax", "add_tax", f"add {k} percent tax to a price", f"value * (100 + {k}) / 100", 200.0 + 2 * k),
        ("tip", "tip", f"compute a tip of {k} percent", f"value * {k} / 100", 2.0 * k),
    ))  # fmt: skip
    return f"{op}/{k}", Spec(
        f"{name}_{k}", "value: float", "float", phrase, f"return {expression}", (("200", lit(result)),)
    )


def between_limits(rng: Random) -> tuple[str, Spec]:
    low, high = rng.choice((0, 1, 5, 10, 18)), rng.choice((20, 50, 65, 99, 100, 255))
    if rng.random() < 0.5:
        return f"clamp/{low}/{high}", Spec(
            f"clamp_{low}_{high}",
            "value: int",
            "int",
            f"clamp a number between {low} and {high}",
            f"return max({low}, min(value, {high}))",
            (("300", str(high)), ("-1", str(low))),
        )
    return f"check/{low}/{high}", Spec(f"is_between_{low}_and_{high}", "value: int", "bool",
                                       f"check whether a number is between {low} and {high}", f"return {low} <= value <= {high}",
                                       (("19", "True"), ("300", "False"), (str(low), "True")))  # fmt: skip


def rounding(rng: Random) -> tuple[str, Spec]:
    if rng.random() < 0.4:
        k = rng.randint(1, 6)
        return f"places/{k}", Spec(
            f"round_to_{k}_places",
            "value: float",
            "float",
            f"round a number to {plural(k, 'decimal place')}",
            f"return round(value, {k})",
            (("3.14159265", lit(round(3.14159265, k))),),
        )
    k = rng.choice((5, 10, 20, 25, 50, 100, 1000))
    op, phrase, expression, result = rng.choice((
        ("round_down", f"round an integer down to a multiple of {k}", f"value // {k} * {k}", 1234 - 1234 % k),
        ("round_up", f"round an integer up to a multiple of {k}", f"-(-value // {k}) * {k}", 1234 + -1234 % k),
        ("round_to", f"round a number to the nearest multiple of {k}", f"round(value / {k}) * {k}", round(1234 / k) * k),
    ))  # fmt: skip
    return f"{op}/{k}", Spec(f"{op}_{k}", "value: int", "int", phrase, f"return {expression}", (("1234", lit(result)),))


def caesar(rng: Random) -> tuple[str, Spec]:
    k, way = rng.randint(1, 13), rng.choice(("forward", "back"))
    sign = "+" if way == "forward" else "-"
    body = ('result = ""\nfor char in text:\n    if char.isalpha():\n        base = ord("A") if char.isupper() else ord("a")\n'
            f"        char = chr((ord(char) - base {sign} {k}) % 26 + base)\n    result += char\nreturn result")  # fmt: skip
    shifted = LETTERS[(k if sign == "+" else -k) % 26]
    return f"{way}/{k}", Spec(f"shift_{way}_{k}", "text: str", "str", f"shift the letters of a string {way} by {k}", body,
                              (('"a!"', lit(shifted + "!")),))  # fmt: skip


def bits(rng: Random) -> tuple[str, Spec]:
    k = rng.randint(0, 7)
    op, phrase, expression, returns, result = rng.choice((
        ("set", f"set bit {k} of an integer", f"n | (1 << {k})", "int", 90 | 2**k),
        ("clear", f"clear bit {k} of an integer", f"n & ~(1 << {k})", "int", 90 & ~(2**k)),
        ("toggle", f"toggle bit {k} of an integer", f"n ^ (1 << {k})", "int", 90 ^ 2**k),
        ("test", f"check whether bit {k} of an integer is set", f"bool(n & (1 << {k}))", "bool", 90 // 2**k % 2 == 1),
        ("lowest", f"keep only the lowest {plural(k + 1, 'bit')} of an integer", f"n & {2 ** (k + 1) - 1}", "int", 90 % 2 ** (k + 1)),
    ))  # fmt: skip
    return f"{op}/{k}", Spec(f"{op}_bit{'s' if op == 'lowest' else ''}_{k + (op == 'lowest')}", "n: int", returns, phrase,
                             f"return {expression}", (("90", lit(result)),))  # fmt: skip


def validate_length(rng: Random) -> tuple[str, Spec]:
    k = rng.randint(4, 16)
    need, test = rng.choice((("a digit", "isdigit"), ("an uppercase letter", "isupper"), ("a lowercase letter", "islower"),
                             ("a letter", "isalpha")))  # fmt: skip
    body = f"return len(password) >= {k} and any(char.{test}() for char in password)"
    good = {"isdigit": "1", "isupper": "A"}.get(test, "a") * k
    return f"{test}/{k}", Spec("is_valid_password", "password: str", "bool",
                               f"check that a password has at least {k} characters and {need}", body,
                               ((lit(good), "True"), ('"?"', "False")))  # fmt: skip


PARAMETRIC: dict[str, Callable[[Random], tuple[str, Spec]]] = {
    "numbers_in_list": numbers_where("list"), "numbers_up_to": numbers_where("up_to"),
    "numbers_between": numbers_where("between"), "filter_numbers": filter_numbers, "characters": characters,
    "words_where": words_where, "unit_conversion": unit_conversion, "temperature": temperature, "shape": shape,
    "digits": digits, "divisible": divisible, "sequence": sequence, "two_steps": two_steps, "text_pipeline": text_pipeline,
    "separators": separators, "letter_case": letter_case, "padding": padding, "string_slice": string_slice,
    "base_conversion": base_conversion, "fizzbuzz": fizzbuzz, "dice": dice, "percent": percent,
    "between_limits": between_limits, "rounding": rounding, "caesar_by": caesar, "bits": bits,
    "password_length": validate_length,
}  # fmt: skip

# Classics. One block each: signature, phrase, examples (`args => result`), optional note and imports, then the body.
CLASSICS = r"""
count_words(text: str) -> int
count the words in a string
"one two three" => 3
> Splitting without an argument treats any run of whitespace as one separator.
return len(text.split())

reverse_string(text: str) -> str
reverse a string
"abc" => "cba"
> The slice `[::-1]` walks the string backwards.
return text[::-1]

reverse_words(text: str) -> str
reverse the order of the words in a string
"red green blue" => "blue green red"
return " ".join(reversed(text.split()))

is_palindrome(text: str) -> bool
check whether a string is a palindrome
"Never odd or even" => True
"hello" => False
> Case, spaces and punctuation are ignored.
cleaned = [char.lower() for char in text if char.isalnum()]
return cleaned == cleaned[::-1]

capitalize_words(text: str) -> str
capitalize every word in a string
"hello big world" => "Hello Big World"
return " ".join(word.capitalize() for word in text.split())

longest_word(text: str) -> str
find the longest word in a string
"a quick fox" => "quick"
return max(text.split(), key=len, default="")

shortest_word(text: str) -> str
find the shortest word in a string
"the big a house" => "a"
return min(text.split(), key=len, default="")

are_anagrams(first: str, second: str) -> bool
check whether two strings are anagrams
"listen", "silent" => True
"cat", "dog" => False
> Two words are anagrams when their sorted letters are equal.
return sorted(first.lower()) == sorted(second.lower())

caesar_cipher(text: str, shift: int) -> str
encrypt a string with a Caesar cipher
"xyz A!", 3 => "abc D!"
> Letters wrap around the alphabet, and other characters stay as they are.
result = ""
for char in text:
    if char.isalpha():
        base = ord("A") if char.isupper() else ord("a")
        char = chr((ord(char) - base + shift) % 26 + base)
    result += char
return result

run_length_encode(text: str) -> str
compress a string with run-length encoding
"aaabbc" => "a3b2c1"
@ from itertools import groupby
return "".join(f"{char}{len(list(group))}" for char, group in groupby(text))

run_length_decode(text: str) -> str
expand a run-length encoded string
"a3b12" => "aaabbbbbbbbbbbb"
@ import re
return "".join(char * int(count) for char, count in re.findall(r"(\D)(\d+)", text))

acronym(phrase: str) -> str
make an acronym from a phrase
"random access memory" => "RAM"
return "".join(word[0].upper() for word in phrase.split())

truncate(text: str, length: int) -> str
truncate a string to a length and end^ it with an ellipsis
"hello world", 8 => "hello..."
"hi", 8 => "hi"
if len(text) <= length:
    return text
return text[: length - 3] + "..."

is_valid_email(email: str) -> bool
check whether a string is a valid email address
"ann@example.com" => True
"ann@com" => False
> The pattern asks for a name, an @ sign and a domain with a dot.
@ import re
return re.fullmatch(r"[\w.+-]+@[\w-]+(\.[\w-]+)+", email) is not None

is_balanced(text: str) -> bool
check whether the brackets in a string are balanced
"{[()]}" => True
"(]" => False
"((" => False
> Each closing bracket must match the last bracket that is still open.
pairs = {")": "(", "]": "[", "}": "{"}
stack = []
for char in text:
    if char in "([{":
        stack.append(char)
    elif char in pairs and (not stack or stack.pop() != pairs[char]):
        return False
return not stack

slugify(title: str) -> str
turn a title into a URL slug
"Hello, Big World!" => "hello-big-world"
@ import re
return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")

word_frequency(text: str) -> dict[str, int]
count how often each word occurs in a text
"a b a" => {"a": 2, "b": 1}
@ from collections import Counter
return dict(Counter(text.lower().split()))

char_frequency(text: str) -> dict[str, int]
count how often each character occurs in a string
"aab" => {"a": 2, "b": 1}
counts = {}
for char in text:
    counts[char] = counts.get(char, 0) + 1
return counts

most_common_word(text: str) -> str
find the most common word in a text
"a b b c" => "b"
@ from collections import Counter
return Counter(text.lower().split()).most_common(1)[0][0]

most_common_char(text: str) -> str
find the most common character in a string
"banana" => "a"
return max(text, key=text.count)

first_unique_char(text: str) -> str | None
find the first character that does not repeat in a string
"swiss" => "w"
"aa" => None
@ from collections import Counter
counts = Counter(text)
return next((char for char in text if counts[char] == 1), None)

remove_duplicates(text: str) -> str
remove duplicate characters from a string
"banana" => "ban"
> A dictionary keeps the first occurrence of each key in order.
return "".join(dict.fromkeys(text))

wrap_text(text: str, width: int) -> list[str]
wrap a text into lines of a given width
"a bc def", 4 => ["a bc", "def"]
@ import textwrap
return textwrap.wrap(text, width)

extract_numbers(text: str) -> list[int]
extract the integers from a string
"3 cats and 12 dogs" => [3, 12]
@ import re
return [int(match) for match in re.findall(r"-?\d+", text)]

normalize_spaces(text: str) -> str
collapse repeated spaces in a string
"  a   b " => "a b"
return " ".join(text.split())

swap_case(text: str) -> str
swap the case of every letter in a string
"Hello" => "hELLO"
return text.swapcase()

is_pangram(text: str) -> bool
check whether a sentence is a pangram
"The quick brown fox jumps over the lazy dog" => True
"hello" => False
@ import string
return set(string.ascii_lowercase) <= set(text.lower())

count_occurrences(text: str, part: str) -> int
count the occurrences of a substring in a string
"banana", "an" => 2
return text.count(part)

is_rotation(first: str, second: str) -> bool
check whether one string is a rotation of another
"abcd", "cdab" => True
"abc", "acb" => False
return len(first) == len(second) and second in first + first

common_prefix(first: str, second: str) -> str
find the common prefix of two strings
"flower", "flow" => "flow"
length = 0
for a, b in zip(first, second):
    if a != b:
        break
    length += 1
return first[:length]

hamming_distance(first: str, second: str) -> int
count the positions at which two strings differ
"karolin", "kathrin" => 3
return sum(a != b for a, b in zip(first, second))

to_roman(n: int) -> str
convert an integer to a Roman numeral
1994 => "MCMXCIV"
4 => "IV"
> The values are tried from the largest to the smallest.
values = [1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1]
symbols = ["M", "CM", "D", "CD", "C", "XC", "L", "XL", "X", "IX", "V", "IV", "I"]
result = ""
for value, symbol in zip(values, symbols):
    count, n = divmod(n, value)
    result += symbol * count
return result

from_roman(numeral: str) -> int
convert a Roman numeral to an integer
"MCMXCIV" => 1994
> A smaller value before a larger one is subtracted.
values = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
total = 0
for current, following in zip(numeral, numeral[1:] + "I"):
    value = values[current]
    total += -value if value < values[following] else value
return total

is_prime(n: int) -> bool
check whether a number is prime
7 => True
9 => False
1 => False
> Only divisors up to the square root of the number need to be tested.
if n < 2:
    return False
for divisor in range(2, int(n**0.5) + 1):
    if n % divisor == 0:
        return False
return True

primes_up_to(n: int) -> list[int]
list all primes up to n with a sieve
10 => [2, 3, 5, 7]
is_prime = [True] * (n + 1)
primes = []
for number in range(2, n + 1):
    if is_prime[number]:
        primes.append(number)
        for multiple in range(number * number, n + 1, number):
            is_prime[multiple] = False
return primes

prime_factors(n: int) -> list[int]
find the prime factors of a number
60 => [2, 2, 3, 5]
factors = []
divisor = 2
while divisor * divisor <= n:
    while n % divisor == 0:
        factors.append(divisor)
        n //= divisor
    divisor += 1
if n > 1:
    factors.append(n)
return factors

divisors(n: int) -> list[int]
list the divisors of a number
12 => [1, 2, 3, 4, 6, 12]
return [divisor for divisor in range(1, n + 1) if n % divisor == 0]

gcd(a: int, b: int) -> int
compute the greatest common divisor of two numbers
12, 18 => 6
> This is Euclid's algorithm.
while b:
    a, b = b, a % b
return a

lcm(a: int, b: int) -> int
compute the least common multiple of two numbers
4, 6 => 12
@ import math
return a * b // math.gcd(a, b)

factorial(n: int) -> int
compute the factorial of a number
5 => 120
0 => 1
result = 1
for factor in range(2, n + 1):
    result *= factor
return result

factorial_recursive(n: int) -> int
compute the factorial of a number with recursion
5 => 120
if n <= 1:
    return 1
return n * FN(n - 1)

fibonacci(n: int) -> int
compute the nth Fibonacci number
10 => 55
0 => 0
a, b = 0, 1
for _ in range(n):
    a, b = b, a + b
return a

fibonacci_list(n: int) -> list[int]
list the first n Fibonacci numbers
6 => [0, 1, 1, 2, 3, 5]
numbers = []
a, b = 0, 1
for _ in range(n):
    numbers.append(a)
    a, b = b, a + b
return numbers

power(base: float, exponent: int) -> float
raise a number to a power without the power operator
2, 10 => 1024
result = 1
for _ in range(exponent):
    result *= base
return result

reverse_number(n: int) -> int
reverse the digits of a number
123 => 321
-450 => -54
sign = -1 if n < 0 else 1
return sign * int(str(abs(n))[::-1])

digital_root(n: int) -> int
compute the digital root of a number
9875 => 2
while n >= 10:
    n = sum(int(digit) for digit in str(n))
return n

is_perfect(n: int) -> bool
check whether a number is perfect
28 => True
12 => False
> A perfect number equals the sum of its proper divisors.
return n > 1 and sum(divisor for divisor in range(1, n) if n % divisor == 0) == n

is_armstrong(n: int) -> bool
check whether a number is an Armstrong number
153 => True
154 => False
digits = str(n)
return n == sum(int(digit) ** len(digits) for digit in digits)

collatz(n: int) -> list[int]
list the Collatz sequence of a number
6 => [6, 3, 10, 5, 16, 8, 4, 2, 1]
sequence = [n]
while n != 1:
    n = n // 2 if n % 2 == 0 else 3 * n + 1
    sequence.append(n)
return sequence

clamp(value: float, low: float, high: float) -> float
clamp a number to a range
12, 0, 10 => 10
-3, 0, 10 => 0
return max(low, min(value, high))

percentage(part: float, whole: float) -> float
compute what percentage one number is of another
30, 120 => 25.0
return part / whole * 100

percent_change(old: float, new: float) -> float
compute the percent change between two numbers
50, 75 => 50.0
return (new - old) / old * 100

average(numbers: list[float]) -> float
compute the average of a list of numbers
[1, 2, 6] => 3.0
return sum(numbers) / len(numbers) if numbers else 0.0

median(numbers: list[float]) -> float
compute the median of a list of numbers
[5, 1, 3] => 3
[4, 1, 2, 3] => 2.5
> With an even count, the median is the mean of the two middle values.
ordered = sorted(numbers)
middle = len(ordered) // 2
if len(ordered) % 2:
    return ordered[middle]
return (ordered[middle - 1] + ordered[middle]) / 2

variance(numbers: list[float]) -> float
compute the population variance of a list of numbers
[1, 2, 3, 4] => 1.25
mean = sum(numbers) / len(numbers)
return sum((number - mean) ** 2 for number in numbers) / len(numbers)

standard_deviation(numbers: list[float]) -> float
compute the standard deviation of a list of numbers
[2, 4, 4, 4, 5, 5, 7, 9] => 2.0
mean = sum(numbers) / len(numbers)
variance = sum((number - mean) ** 2 for number in numbers) / len(numbers)
return variance**0.5

distance(x1: float, y1: float, x2: float, y2: float) -> float
compute the distance between two points
0, 0, 3, 4 => 5.0
@ import math
return math.hypot(x2 - x1, y2 - y1)

manhattan_distance(x1: int, y1: int, x2: int, y2: int) -> int
compute the Manhattan distance between two points
0, 0, 3, -4 => 7
return abs(x2 - x1) + abs(y2 - y1)

simple_interest(principal: float, rate: float, years: float) -> float
compute simple interest
1000, 5, 2 => 100.0
> The rate is a percentage per year.
return principal * rate * years / 100

compound_interest(principal: float, rate: float, years: int) -> float
compute the balance after compound interest
1000, 10, 2 => 1210.0
> The rate is a percentage per year.
return principal * (1 + rate / 100) ** years

is_leap_year(year: int) -> bool
check whether a year is a leap year
2024 => True
1900 => False
2000 => True
> Century years are leap years only when they are divisible by 400.
return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)

quadratic_roots(a: float, b: float, c: float) -> tuple[float, ...]
find the real roots of a quadratic equation
1, -3, 2 => (1.0, 2.0)
1, 0, 1 => ()
> The result is empty when the discriminant is negative.
@ import math
discriminant = b**2 - 4 * a * c
if discriminant < 0:
    return ()
root = math.sqrt(discriminant)
return tuple(sorted({(-b - root) / (2 * a), (-b + root) / (2 * a)}))

is_even(n: int) -> bool
check whether a number is even
4 => True
3 => False
return n % 2 == 0

is_odd(n: int) -> bool
check whether a number is odd
3 => True
4 => False
return n % 2 == 1

is_perfect_square(n: int) -> bool
check whether a number is a perfect square
16 => True
15 => False
-4 => False
@ import math
return n >= 0 and math.isqrt(n) ** 2 == n

is_power_of_two(n: int) -> bool
check whether a number is a power of two
8 => True
6 => False
> A power of two has exactly one bit set.
return n > 0 and n & (n - 1) == 0

sign(number: float) -> int
return the sign of a number
-3 => -1
0 => 0
if number > 0:
    return 1
if number < 0:
    return -1
return 0

max_of_two(a: float, b: float) -> float
return the larger of two numbers
2, 5 => 5
return a if a > b else b

max_of_three(a: float, b: float, c: float) -> float
return the largest of three numbers
2, 9, 5 => 9
return max(a, b, c)

min_of_three(a: float, b: float, c: float) -> float
return the smallest of three numbers
2, 9, 5 => 2
return min(a, b, c)

count_bits(n: int) -> int
count the ones in the binary form of a number
13 => 3
return bin(n).count("1")

format_time(seconds: int) -> str
format seconds as hours, minutes and seconds
3725 => "01:02:05"
hours, rest = divmod(seconds, 3600)
minutes, seconds = divmod(rest, 60)
return f"{hours:02}:{minutes:02}:{seconds:02}"

parse_time(text: str) -> int
convert a time such as "01:02:05" to seconds
"01:02:05" => 3725
hours, minutes, seconds = map(int, text.split(":"))
return hours * 3600 + minutes * 60 + seconds

arithmetic_sequence(start: int, step: int, n: int) -> list[int]
list the first n terms of an arithmetic sequence
2, 3, 4 => [2, 5, 8, 11]
return [start + step * i for i in range(n)]

geometric_sequence(start: int, ratio: int, n: int) -> list[int]
list the first n terms of a geometric sequence
3, 2, 4 => [3, 6, 12, 24]
return [start * ratio**i for i in range(n)]

multiplication_table(n: int) -> list[int]
return the multiplication table of a number from 1 to 10
2 => [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]
return [n * i for i in range(1, 11)]

binomial(n: int, k: int) -> int
compute the number of ways to choose k of n items
5, 2 => 10
@ import math
return math.comb(n, k)

bmi(weight: float, height: float) -> float
compute the body mass index from kilograms and meters
80, 2 => 20.0
return weight / height**2

letter_grade(score: int) -> str
convert a score to a letter grade
95 => "A"
72 => "C"
10 => "F"
if score >= 90:
    return "A"
if score >= 80:
    return "B"
if score >= 70:
    return "C"
if score >= 60:
    return "D"
return "F"

is_valid_triangle(a: float, b: float, c: float) -> bool
check whether three sides can form a triangle
3, 4, 5 => True
1, 2, 5 => False
return a + b > c and a + c > b and b + c > a

integer_sqrt(n: int) -> int
compute the integer square root with binary search
17 => 4
16 => 4
low, high = 0, n
while low < high:
    middle = (low + high + 1) // 2
    if middle * middle <= n:
        low = middle
    else:
        high = middle - 1
return low

format_thousands(n: int) -> str
format a number with commas as thousands separators
1234567 => "1,234,567"
return f"{n:,}"

ordinal(n: int) -> str
convert a number to its ordinal, such as 1st or 2nd
1 => "1st"
12 => "12th"
23 => "23rd"
if 10 <= n % 100 <= 20:
    return f"{n}th"
suffix = {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
return f"{n}{suffix}"
"""


def parse_classic(block: str) -> Spec:
    signature, phrase, *rest = block.strip("\n").split("\n")
    name, params, returns = re.fullmatch(r"(\w+)\((.*)\) -> (.+)", signature).groups()
    examples, before, note, body = [], "", "", []
    for line in rest:
        if line.startswith("@ "):
            before = line[2:]
        elif line.startswith("> "):
            note = line[2:]
        elif " => " in line and not body:
            examples.append(tuple(line.split(" => ")))
        else:
            body.append(line)
    return Spec(name, params, returns, phrase, "\n".join(body), tuple(examples), before, note)


def parametric(family: str, build: Callable[[Random], tuple[str, Spec]]) -> Family:
    def make(rng: Random) -> Task:
        return render(rng, family, *build(rng))

    return make


def classic(spec: Spec) -> Family:
    return lambda rng: render(rng, spec.name, "", spec)


FAMILIES: dict[str, Family] = {
    **{name: parametric(name, build) for name, build in PARAMETRIC.items()},
    **{spec.name: classic(spec) for spec in map(parse_classic, CLASSICS.strip().split("\n\n"))},
}
