"""Families of small tasks on numbers, units and mathematics."""

import re
from collections.abc import Callable
from random import Random

from spec import DATA, Build, Spec, literal, plural
from task import read_rows

UNITS: dict[str, dict[str, float]] = DATA["units"]
TEMPERATURES = {(row["a"], row["b"]): row["formula"] for row in read_rows(DATA["tables"]["temperatures"])}
SHAPES = read_rows(DATA["tables"]["shapes"])

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


def numbers_where(source: str) -> Build:
    where, params, iterable, suffix = {
        "list": (" in a list", "numbers: list[int]", "numbers", ""),
        "up_to": (" from 1 to n", "n: int", "range(1, n + 1)", "_up_to"),
        "between": (" between start and end, inclusive", "start: int, end: int", "range(start, end + 1)", "_between"),
    }[source]
    args, domain = {
        "list": (literal(SAMPLE), SAMPLE),
        "up_to": ("30", range(1, 31)),
        "between": ("2, 20", range(2, 21)),
    }[source]

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
        args_used = literal(SAMPLE[:6]) if source == "list" else args
        return f"{op}/{slug}", Spec(
            f"{op}_{slug}{suffix}", params, returns, phrase.replace("N", noun) + where, body,
            ((args_used, literal(reference(values))),), before,
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
        name, "numbers: list[int]", returns, phrase, body, ((literal(SAMPLE[:6]), literal(result)),), before
    )


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


FREEZING = {"celsius": 0.0, "fahrenheit": 32.0, "kelvin": 273.15}


def temperature(rng: Random) -> tuple[str, Spec]:
    a, b = rng.choice(list(TEMPERATURES))
    phrase = f"convert a temperature from {a.title()} to {b.title()}"
    return f"{a}/{b}", Spec(f"{a}_to_{b}", "value: float", "float", phrase, f"return {TEMPERATURES[a, b]}",
                            ((literal(FREEZING[a]), literal(FREEZING[b])),))  # fmt: skip


def shape(rng: Random) -> tuple[str, Spec]:
    measure, solid, names, formula, args, result = rng.choice(SHAPES).values()
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
                                (("47016", literal(reference(found))),), "import math" if op == "product" else "")  # fmt: skip


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
    return f"{op}/{slug}", Spec(name, "n: int", returns, phrase, body, (("4", literal(result)),))


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
                     (("3", literal(result(eval(term, {"x": 3})))),))  # fmt: skip


BASES = {"binary": (2, "b"), "octal": (8, "o"), "decimal": (10, "d"), "hexadecimal": (16, "x")}


def base_conversion(rng: Random) -> tuple[str, Spec]:
    a, b = rng.sample(list(BASES), 2)
    source = "n" if a == "decimal" else f"int(text, {BASES[a][0]})"
    value = source if b == "decimal" else f'format({source}, "{BASES[b][1]}")'
    args = "45" if a == "decimal" else literal(format(45, BASES[a][1]))
    result = "45" if b == "decimal" else literal(format(45, BASES[b][1]))
    return f"{a}/{b}", Spec(f"{a}_to_{b}", "n: int" if a == "decimal" else "text: str", "int" if b == "decimal" else "str",
                            f"convert a {a} number to {b}", f"return {value}", ((args, result),))  # fmt: skip


def fizzbuzz(rng: Random) -> tuple[str, Spec]:
    a, b = rng.choice(((3, 5), (2, 3), (3, 7), (5, 7), (2, 7), (4, 5), (2, 5), (3, 4)))
    x, y = rng.choice((("Fizz", "Buzz"), ("Foo", "Bar"), ("Tick", "Tock"), ("Ping", "Pong")))
    body = (f'if n % {a * b} == 0:\n    return "{x}{y}"\nif n % {a} == 0:\n    return "{x}"\n'
            f'if n % {b} == 0:\n    return "{y}"\nreturn str(n)')  # fmt: skip
    phrase = f'return "{x}" for multiples of {a}, "{y}" for multiples of {b}, "{x}{y}" for both'
    return f"{a}/{b}/{x}", Spec(f"{x}{y}".lower(), "n: int", "str", phrase, body,
                                ((str(a * b), literal(x + y)), (str(a), literal(x)), ("1", '"1"')))  # fmt: skip


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
        f"{name}_{k}", "value: float", "float", phrase, f"return {expression}", (("200", literal(result)),)
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
            (("3.14159265", literal(round(3.14159265, k))),),
        )
    k = rng.choice((5, 10, 20, 25, 50, 100, 1000))
    op, phrase, expression, result = rng.choice((
        ("round_down", f"round an integer down to a multiple of {k}", f"value // {k} * {k}", 1234 - 1234 % k),
        ("round_up", f"round an integer up to a multiple of {k}", f"-(-value // {k}) * {k}", 1234 + -1234 % k),
        ("round_to", f"round a number to the nearest multiple of {k}", f"round(value / {k}) * {k}", round(1234 / k) * k),
    ))  # fmt: skip
    return f"{op}/{k}", Spec(
        f"{op}_{k}", "value: int", "int", phrase, f"return {expression}", (("1234", literal(result)),)
    )


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
                             f"return {expression}", (("90", literal(result)),))  # fmt: skip
