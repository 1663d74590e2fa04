"""Families of small programs: classes, files, iterators, dates, errors and classic exercises."""

import ast
import re
from collections.abc import Callable, Iterable
from itertools import product
from random import Random
from zlib import crc32

from task import Family, Task

FAMILIES: dict[str, Family] = {}
Row = dict[str, str]

FUNCTION_ASKS = (
    "Write a {k} that {w}.", "Write a Python {k} that {w}.", "Can you write a {k} that {w}?",
    "I need a {k} which {w}.", "Implement a {k} that {w}.", "write a python {k} that {w}",
    "Please give me a {k} that {w}.", "{k} that {w} please",
)  # fmt: skip
HOW_ASKS = ("How do I {b} in Python?", "how can i {b} with python?", "write python code to {b}")
HOW_KIND_ASKS = ("How do I write a {k} that {w} in Python?", "how to make a {k} that {w}")
NAMED_ASKS = (
    "Write a {k} `{s}` that {w}.", "Can you implement `{s}`? It should {b}.",
    "Define `{s}` that {w}.", "Create a {k} called `{n}` that {w}.",
    "write a {k} named {n} that {w}",
)  # fmt: skip
CLASS_ASKS = (
    "Write a {k} for {w}.", "write a python {k} for {w}", "I need a {k} which represents {w}.",
    "Can you implement a {k} for {w}?", "How do I write a {k} for {w} in Python?",
    "Please define a {k} for {w}.", "{k} for {w} please", "Model {w} as a Python {k}.",
)  # fmt: skip
NAMED_CLASS_ASKS = (
    "Create a {k} called `{n}` for {w}.", "Define a {k} `{n}` for {w}.",
    "write a {k} named {n} for {w}", "Implement `{n}`, a {k} for {w}.",
)  # fmt: skip
ALIASES = ("my_{}", "do_{}", "{}_helper", "solve", "compute", "process", "f")
CLASS_ALIASES = ("My{}", "Simple{}", "Basic{}", "{}Model")


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
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name:
            args = node.args
            names = [a.arg for a in args.args]
            if args.vararg:
                names.append("*" + args.vararg.arg)
            if args.kwarg:
                names.append("**" + args.kwarg.arg)
            return f"{name}({', '.join(names)})"
    return name


def rename(text: str, old: str, new: str, is_class: bool) -> str:
    """Rename the function or class, leaving the prose of docstrings alone."""
    pattern = rf"\b{old}\b" if is_class else rf"(?<![\w.]){old}(?=[(,)])|(?<=@){old}\b"
    return re.sub(pattern, new, text)


def add(
    slug: str,
    kind: str,
    what: str,
    code: str,
    check: str,
    cols: str = "",
    rows: Iterable[str] | Callable[[Random], Row] = ("",),
    outro: str | None = None,
) -> None:
    """Register a family; the first column of a row is its key, the last definition its name."""
    header = cols.split()
    table = (
        rows if callable(rows) else [dict(zip(header, row.split("|"), strict=True)) if header else {} for row in rows]
    )
    digest = crc32(slug.encode())

    def family(rng: Random) -> Task:
        row = table(rng) if callable(table) else rng.choice(table)
        key = row.get("key") or (row[header[0]] if header else "")
        source, test, phrase, k = (fill(t, row).strip() for t in (code, check, what, kind))
        name = re.findall(r"^(?:async )?(?:def|class) (\w+)", source, re.M)
        name = name[-1] if name else re.findall(r"^(\w+) =", source, re.M)[-1]
        is_class = name[0].isupper() and not phrase.split()[0].endswith("s")
        is_class = is_class or phrase.split()[0] in ("a", "an", "the")
        if is_class:
            plain, named = CLASS_ASKS, NAMED_CLASS_ASKS
        else:
            plain = FUNCTION_ASKS + (HOW_ASKS if k == "function" else HOW_KIND_ASKS)
            named = NAMED_ASKS
        if rng.random() < 0.35:
            ask = rng.choice(named)
            if rng.random() < 0.6:
                aliases = CLASS_ALIASES if name[0].isupper() else ALIASES
                new = rng.choice(aliases).format(name)
                source = rename(source, name, new, name[0].isupper())
                test = rename(test, name, new, name[0].isupper())
                name = new
        else:
            ask = rng.choice(plain)
        prompt = ask.format(k=k, w=phrase, b=base_form(phrase), n=name, s=signature(source, name))
        article = "an" if k[0] in "aei" else "a"
        prompt = re.sub(r"\b([Aa]) (?=(?:async function|exception|iterator class))", r"\1n ", prompt)
        if prompt.startswith(k) and rng.random() < 0.5:
            prompt = prompt[0].upper() + prompt[1:]
        joint = "for" if is_class else "that"
        intro = f"Here is {article} {k} {joint} {phrase}:" if digest % 2 else ""
        first = re.match(r"assert (\w+\(.*\)) == (.+)$", test.splitlines()[0])
        if outro is not None:
            end = fill(outro, row)
        elif first and first[1].startswith(name + "(") and digest % 8 < 5:
            end = f"For example, `{first[1]}` returns `{first[2]}`."
        else:
            end = ""
        return Task(f"{slug}/{key}" if key else slug, prompt, source + "\n", intro, end, test)

    FAMILIES[slug] = family


# ---------------------------------------------------------------- classes

ENTITIES = {
    "Book": "title:str author:str pages:int price:float year:int",
    "Student": "name:str age:int grade:float school:str",
    "Employee": "name:str salary:float department:str age:int email:str",
    "Product": "name:str price:float quantity:int category:str",
    "Car": "brand:str model:str year:int price:float color:str",
    "Movie": "title:str director:str year:int rating:float",
    "Song": "title:str artist:str duration:int album:str",
    "City": "name:str country:str population:int area:float",
    "Person": "name:str age:int email:str city:str height:float",
    "Dog": "name:str breed:str age:int weight:float",
    "Order": "customer:str total:float items:int paid:bool",
    "Player": "name:str score:int level:int team:str",
    "Recipe": "title:str servings:int minutes:int author:str",
    "House": "address:str rooms:int area:float price:float",
    "Task": "title:str priority:int done:bool owner:str",
    "Course": "title:str teacher:str credits:int room:str",
    "Ticket": "event:str seat:int price:float holder:str",
    "Phone": "brand:str model:str price:float storage:int",
    "Planet": "name:str radius:float mass:float moons:int",
    "Flight": "origin:str destination:str duration:int price:float",
    "Teacher": "name:str subject:str age:int school:str",
    "Message": "sender:str receiver:str text:str read:bool",
}
SAMPLES = {"str": '"abc"', "int": "3", "float": "2.5", "bool": "True"}


def entity(rng: Random) -> Row:
    """Choose a class and two to four of its fields, and render the pieces templates use."""
    name = rng.choice(list(ENTITIES))
    fields = [field.split(":") for field in ENTITIES[name].split()]
    size = rng.randint(2, min(4, len(fields)))
    fields = [fields[i] for i in sorted(rng.sample(range(len(fields)), size))]
    if all(t in ("str", "bool") for _, t in fields):
        return entity(rng)
    number = next(f for f, t in fields if t in ("int", "float"))
    names = [f for f, _ in fields]
    values = [SAMPLES[t] for _, t in fields]
    tuple_of = lambda prefix: ", ".join(prefix + f for f in names)  # noqa: E731
    noun = name.lower()
    return {
        "key": f"{noun}/{'-'.join(names)}",
        "N": name, "noun": noun, "num": number, "numval": values[names.index(number)],
        "a": "an" if noun[0] in "aeio" else "a",
        "list": ", ".join(names[:-1]) + " and " + names[-1],
        "attrs": "\n".join(f"    {f}: {t}" for f, t in fields),
        "params": ", ".join(f"{f}: {t}" for f, t in fields),
        "sets": "\n".join(f"        self.{f} = {f}" for f in names),
        "selfs": tuple_of("self."), "others": tuple_of("other."),
        "reprs": ", ".join(f"{{self.{f}!r}}" for f in names),
        "dict": "{" + ", ".join(f'"{f}": self.{f}' for f in names) + "}",
        "gets": ", ".join(f'data["{f}"]' for f in names),
        "vals": ", ".join(values),
        "bad": ", ".join("-1" if f == number else v for f, v in zip(names, values)),
        "big": ", ".join("99" if f == number else v for f, v in zip(names, values)),
        "data": "{" + ", ".join(f'"{f}": {v}' for f, v in zip(names, values)) + "}",
        "doc": f"Represent {'an' if noun[0] in 'aeio' else 'a'} {noun}.",
        "first": names[0], "firstval": values[0],
    }  # fmt: skip


def fitting(body: str) -> Callable[[Random], Row]:
    """Return an entity chooser whose code has no line over 84 characters."""

    def choose(rng: Random) -> Row:
        row = entity(rng)
        while max(map(len, fill(body, row).splitlines())) > 84:
            row = entity(rng)
        return row

    return choose


INIT = '''
class <<N>>:
    """<<doc>>"""

    def __init__(self, <<params>>) -> None:
        """Store the fields."""
<<sets>>
'''
WITH = "<<a>> <<noun>> with the fields <<list>>"
GET = "x = <<N>>(<<vals>>)\nassert x.<<num>> == <<numval>>\nassert x.<<first>> == <<firstval>>"

for slug, kind, phrase, body, check, outro in (
    ("class/dataclass", "dataclass", WITH,
     'from dataclasses import dataclass\n\n\n@dataclass\nclass <<N>>:\n    """<<doc>>"""\n\n<<attrs>>',
     GET + "\nassert x == <<N>>(<<vals>>)",
     "The decorator creates `__init__`, `__repr__` and `__eq__` from the fields."),
    ("class/frozen", "frozen dataclass", WITH,
     'from dataclasses import dataclass\n\n\n@dataclass(frozen=True)\nclass <<N>>:\n    """<<doc>>"""\n\n<<attrs>>',
     GET + "\nassert hash(x) == hash(<<N>>(<<vals>>))",
     "Because it is frozen, the fields cannot be changed after creation."),
    ("class/dataclass-dict", "dataclass", WITH + " and a to_dict method",
     'from dataclasses import asdict, dataclass\n\n\n@dataclass\nclass <<N>>:\n    """<<doc>>"""\n\n<<attrs>>\n\n'
     '    def to_dict(self) -> dict[str, object]:\n        """Return the fields as a dictionary."""\n        return asdict(self)',
     GET + "\nassert x.to_dict() == <<data>>", ""),
    ("class/dataclass-valid", "dataclass", WITH + " which rejects a negative <<num>>",
     'from dataclasses import dataclass\n\n\n@dataclass\nclass <<N>>:\n    """<<doc>>"""\n\n<<attrs>>\n\n'
     '    def __post_init__(self) -> None:\n        """Check the <<num>>."""\n        if self.<<num>> < 0:\n'
     '            raise ValueError("<<num>> must not be negative")',
     GET + "\ntry:\n    <<N>>(<<bad>>)\nexcept ValueError:\n    pass\nelse:\n    raise AssertionError",
     "The method `__post_init__` runs right after the generated `__init__`."),
    ("class/namedtuple", "named tuple", WITH,
     'from typing import NamedTuple\n\n\nclass <<N>>(NamedTuple):\n    """<<doc>>"""\n\n<<attrs>>',
     GET + "\nassert x == (<<vals>>,)", ""),
    ("class/plain", "plain class", WITH, INIT, GET, ""),
    ("class/repr", "class", WITH + " and a __repr__ method",
     INIT + '\n    def __repr__(self) -> str:\n        """Return a readable form."""\n        return f"<<N>>(<<reprs>>)"',
     GET + "\nassert repr(x).startswith('<<N>>(')", None),
    ("class/eq", "class", WITH + " and an __eq__ method",
     INIT + '\n    def __eq__(self, other: object) -> bool:\n        """Compare all fields."""\n'
     '        if not isinstance(other, <<N>>):\n            return NotImplemented\n'
     '        return (<<selfs>>) == (<<others>>)',
     GET + "\nassert x == <<N>>(<<vals>>)\nassert x != <<N>>(<<big>>)",
     "Two objects are equal when all their fields are equal."),
    ("class/from-dict", "class", WITH + " and a from_dict class method",
     INIT + '\n    @classmethod\n    def from_dict(cls, data: dict) -> "<<N>>":\n        """Create the object from a dictionary."""\n'
     '        return cls(<<gets>>)',
     "x = <<N>>.from_dict(<<data>>)\nassert x.<<num>> == <<numval>>", ""),
    ("class/to-dict", "class", WITH + " and a to_dict method",
     INIT + '\n    def to_dict(self) -> dict[str, object]:\n        """Return the fields as a dictionary."""\n        return <<dict>>',
     GET + "\nassert x.to_dict() == <<data>>", ""),
    ("class/less-than", "class", WITH + " which can be sorted by <<num>>",
     INIT + '\n    def __lt__(self, other: "<<N>>") -> bool:\n        """Compare by <<num>>."""\n        return self.<<num>> < other.<<num>>',
     "assert <<N>>(<<vals>>) < <<N>>(<<big>>)\nassert not <<N>>(<<big>>) < <<N>>(<<vals>>)",
     "With `__lt__` defined, `sorted` and `min` work on these objects."),
):  # fmt: skip
    add(slug, kind, phrase, body, check, rows=fitting(body), outro=outro)

SHAPES = (
    "Rectangle|width height|self.width * self.height|2 * (self.width + self.height)|3, 4|12|14",
    "Square|side|self.side**2|4 * self.side|3|9|12",
    "Circle|radius|math.pi * self.radius**2|2 * math.pi * self.radius|1|math.pi|2 * math.pi",
    "Rhombus|side height|self.side * self.height|4 * self.side|5, 4|20|20",
    "Hexagon|side|1.5 * math.sqrt(3) * self.side**2|6 * self.side|2|6 * math.sqrt(3)|12",
    "Triangle|a b c|math.sqrt(s * (s - self.a) * (s - self.b) * (s - self.c))|self.a + self.b + self.c|3, 4, 5|6|12",
)


def shape(rng: Random) -> Row:
    """Choose a shape and whether it offers the area, the perimeter or both, as what."""
    name, fields, area, perimeter, args, value, length = rng.choice(SHAPES).split("|")
    parts, style = rng.choice((("area",), ("perimeter",), ("area", "perimeter"))), rng.randint(0, 1)
    formula = {"area": area, "perimeter": perimeter}
    result = {"area": value, "perimeter": length}
    deco, call = ("    @property\n", "") if style else ("", "()")
    methods = ""
    for part in parts:
        half = ""
        if name == "Triangle" and part == "area":
            half = "        s = (self.a + self.b + self.c) / 2\n"
        methods += f'\n{deco}    def {part}(self) -> float:\n        """Return the {part}."""\n{half}        return {formula[part]}\n'
    math = "import math\n" if "math." in methods else ""
    return {
        "key": f"{name.lower()}/{'-'.join(parts)}/{('method', 'property')[style]}",
        "N": name, "noun": name.lower(), "math": math + "from dataclasses import dataclass",
        "fields": "\n".join(f"    {f}: float" for f in fields.split()), "methods": methods.rstrip(),
        "what": " and ".join(parts) + (" property" if style else " method") * (len(parts) == 1)
        + (" properties" if style else " methods") * (len(parts) == 2),
        "the": "an" if parts[0] == "area" else "a",
        "check": "import math\n" + "\n".join(
            f"assert math.isclose({name}({args}).{p}{call}, {result[p]})" for p in parts),
    }  # fmt: skip


add(
    "class/shape",
    "class",
    "a <<noun>> with <<the>> <<what>>",
    '<<math>>\n\n\n@dataclass\nclass <<N>>:\n    """Represent a <<noun>>."""\n\n<<fields>>\n<<methods>>',
    "<<check>>",
    rows=shape,
)

add("class/account", "class", "a <<noun>> with <<inn>> and <<out>> methods", '''
class <<N>>:
    """Represent a <<noun>>."""

    def __init__(self, <<held>>: float = 0) -> None:
        """Start with the given <<held>>."""
        self.<<held>> = <<held>>

    def <<inn>>(self, amount: float) -> None:
        """Increase the <<held>>."""
        if amount <= 0:
            raise ValueError("Amount must be positive")
        self.<<held>> += amount

    def <<out>>(self, amount: float) -> None:
        """Decrease the <<held>>."""
        if amount > self.<<held>>:
            raise ValueError("Not enough <<held>>")
        self.<<held>> -= amount
''', "x = <<N>>(10)\nx.<<inn>>(5)\nx.<<out>>(3)\nassert x.<<held>> == 12", "noun N held inn out", (
    "bank account|BankAccount|balance|deposit|withdraw", "wallet|Wallet|money|add|spend",
    "fuel tank|FuelTank|fuel|refill|use", "gift card|GiftCard|credit|charge|pay",
    "battery|Battery|energy|charge|drain", "piggy bank|PiggyBank|savings|save|take",
    "water tank|WaterTank|water|fill|drain", "warehouse|Warehouse|stock|receive|ship",
), outro="Both methods raise a `ValueError` when the amount is not valid.")  # fmt: skip

COLLECTIONS = (
    "Playlist|song|songs|a playlist", "Library|book|books|a library", "Team|player|players|a team",
    "ShoppingList|item|items|a shopping list", "Garage|car|cars|a garage", "Classroom|student|students|a classroom",
    "Zoo|animal|animals|a zoo", "TodoList|task|tasks|a todo list", "Album|photo|photos|a photo album", "Menu|dish|dishes|a menu",
)  # fmt: skip
EXTRAS = {
    "len": ("the length", '    def __len__(self) -> int:\n        """Return how many <<items>> there are."""\n        return len(self.<<items>>)',
            "assert len(x) == 2"),
    "iter": ("iteration", '    def __iter__(self) -> Iterator[str]:\n        """Iterate over the <<items>>."""\n        return iter(self.<<items>>)',
             'assert list(x) == ["a", "b"]'),
    "contains": ("the in operator", '    def __contains__(self, <<item>>: str) -> bool:\n        """Tell whether the <<item>> is present."""\n'
                 "        return <<item>> in self.<<items>>", 'assert "a" in x and "z" not in x'),
    "remove": ("a remove method", '    def remove(self, <<item>>: str) -> None:\n        """Remove the <<item>>."""\n'
               "        self.<<items>>.remove(<<item>>)", 'x.remove("a")\nassert x.<<items>> == ["b"]'),
    "getitem": ("indexing", '    def __getitem__(self, index: int) -> str:\n        """Return the <<item>> at the index."""\n'
                "        return self.<<items>>[index]", 'assert x[1] == "b"'),
    "clear": ("a clear method", '    def clear(self) -> None:\n        """Remove all <<items>>."""\n        self.<<items>>.clear()',
              "x.clear()\nassert x.<<items>> == []"),
}  # fmt: skip


def collection(rng: Random) -> Row:
    """Choose a collection of strings and one or two abilities."""
    name, item, items, noun = rng.choice(COLLECTIONS).split("|")
    picked = sorted(rng.sample(list(EXTRAS), rng.randint(1, 2)), key=list(EXTRAS).index)
    row = {"N": name, "item": item, "items": items, "noun": noun, "key": f"{name.lower()}/{'-'.join(picked)}"}
    row["what"] = " and ".join(EXTRAS[p][0] for p in picked)
    row["methods"] = "\n\n".join(fill(EXTRAS[p][1], row) for p in picked)
    order = sorted(picked, key=lambda p: p in ("remove", "clear"))
    changed = [p for p in picked if p in ("remove", "clear")]
    order = [p for p in order if p not in changed[1:]]
    row["check"] = "\n".join(fill(EXTRAS[p][2], row) for p in order)
    row["imports"] = "from collections.abc import Iterator\n\n\n" if "iter" in picked else ""
    return row


add(
    "class/collection",
    "class",
    "<<noun>> of <<items>> with an add method that supports <<what>>",
    '''
<<imports>>class <<N>>:
    """Hold <<items>> in the order they were added."""

    def __init__(self) -> None:
        """Start empty."""
        self.<<items>>: list[str] = []

    def add(self, <<item>>: str) -> None:
        """Add the <<item>>."""
        self.<<items>>.append(<<item>>)

<<methods>>
''',
    'x = <<N>>()\nx.add("a")\nx.add("b")\n<<check>>',
    rows=collection,
)

add("class/counter", "class", "a counter that <<goes>> in steps of <<n>>", '''
class <<N>>:
    """Count in steps of <<n>>."""

    def __init__(self, value: int = 0) -> None:
        """Start at the given value."""
        self.value = value

    def step(self) -> int:
        """Change the value by <<n>> and return it."""
        self.value <<op>>= <<n>>
        return self.value
''', "x = <<N>>(50)\nx.step()\nassert x.step() == 50 <<op>> 2 * <<n>>", "key goes n op N",
    [f"{g}/{n}|goes {g}|{n}|{o}|{c}" for (g, o, c), n in product(
        (("up", "+", "Counter"), ("down", "-", "CountdownCounter")), (1, 2, 3, 4, 5, 10, 20, 25))])  # fmt: skip

add("class/container", "class", "a <<noun>> with <<put>>, <<get>> and is_empty methods", '''
from collections import deque


class <<N>>:
    """<<doc>>"""

    def __init__(self) -> None:
        """Start empty."""
        self._items: deque[object] = deque()

    def <<put>>(self, item: object) -> None:
        """Add an item."""
        self._items.append(item)

    def <<get>>(self) -> object:
        """Remove and return the <<which>> item."""
        if not self._items:
            raise IndexError("<<noun>> is empty")
        return self._items.<<pop>>()

    def is_empty(self) -> bool:
        """Tell whether there are no items."""
        return not self._items
''', "x = <<N>>()\nx.<<put>>(1)\nx.<<put>>(2)\nassert x.<<get>>() == <<res>>\nassert not x.is_empty()", "key noun N put get which pop doc res", (
    "stack|stack|Stack|push|pop|newest|pop|Store items, last in first out.|2",
    "queue|queue|Queue|enqueue|dequeue|oldest|popleft|Store items, first in first out.|1",
    "stack2|stack|Stack|put|take|newest|pop|Store items, last in first out.|2",
    "queue2|queue|Queue|put|get|oldest|popleft|Store items, first in first out.|1",
    "line|waiting line|WaitingLine|join|serve|oldest|popleft|Serve items in the order they came.|1",
))  # fmt: skip

add("class/vector", "dataclass", "a <<dim>>D vector that supports <<what>>", '''
<<imp>>from dataclasses import dataclass


@dataclass(frozen=True)
class Vector<<dim>>D:
    """Represent a vector with <<dim>> coordinates."""

<<fields>>

    def <<head>>:
        """<<doc>>"""
        return <<expr>>
''', "assert Vector<<dim>>D(<<args>>)<<test>>", "key dim what head doc expr fields args test imp",
    [f"{d}/{k}|{d}|{w}|{h.replace('V', f'Vector{d}D')}|{doc}|" +
     (f"Vector{d}D({', '.join(e.replace('%', c) for c in 'xyz'[:d])})" if k in ("add", "sub", "mul", "neg")
      else (f"math.hypot({', '.join('self.' + c for c in 'xyz'[:d])})" if k == "len" else " + ".join(e.replace("%", c) for c in "xyz"[:d])))
     + "|" + "\n".join(f"    {c}: float" for c in "xyz"[:d]) + "|" + ", ".join("340"[:d]) + "|"
     + t.replace("V2", f"Vector{d}D").replace("3, 4", ", ".join("340"[:d])).replace("6, 8", ", ".join("680"[:d])).replace("-3, -4", "-3, -4" + ", 0" * (d - 2)).replace("ZZ", ", ".join("0" * d))
     + "|" + ("import math\n" if k == "len" else "")
     for d in (2, 3) for k, w, h, doc, e, t in (
        ("add", "addition with +", '__add__(self, other: "V") -> "V"', "Add two vectors.", "self.% + other.%", " + V2(3, 4) == V2(6, 8)"),
        ("sub", "subtraction with -", '__sub__(self, other: "V") -> "V"', "Subtract two vectors.", "self.% - other.%", " - V2(3, 4) == V2(ZZ)"),
        ("mul", "multiplication by a number with *", '__mul__(self, factor: float) -> "V"', "Scale the vector.", "self.% * factor", " * 2 == V2(6, 8)"),
        ("neg", "negation with -", '__neg__(self) -> "V"', "Reverse the direction.", "-self.%", ".__neg__() == V2(-3, -4)"),
        ("dot", "the dot product", 'dot(self, other: "V") -> float', "Return the dot product.", "self.% * other.%", ".dot(V2(3, 4)) == 25"),
        ("len", "its length", "length(self) -> float", "Return the length.", "", ".length() == 5"),
    )])  # fmt: skip

add("class/units", "class", "a <<noun>> stored in <<unit>> with a property for <<other>>", '''
class <<N>>:
    """Store a <<noun>> in <<unit>>."""

    def __init__(self, <<unit>>: float) -> None:
        """Set the value in <<unit>>."""
        self.<<unit>> = <<unit>>

    @property
    def <<other>>(self) -> float:
        """Return the value in <<other>>."""
        return self.<<unit>> <<formula>>
''', "assert abs(<<N>>(<<arg>>).<<other>> - <<res>>) < 1e-9", "key noun N unit other formula arg res", [
    f"{r.split('|')[2]}-{r.split('|')[3]}|{r}" for r in (
    "temperature|Temperature|celsius|fahrenheit|* 9 / 5 + 32|100|212", "temperature|Temperature|celsius|kelvin|+ 273.15|0|273.15",
    "temperature|Temperature|kelvin|celsius|- 273.15|273.15|0", "distance|Distance|meters|kilometers|/ 1000|500|0.5",
    "distance|Distance|kilometers|meters|* 1000|2|2000", "distance|Distance|meters|centimeters|* 100|2|200",
    "distance|Distance|feet|inches|* 12|3|36", "duration|Duration|seconds|minutes|/ 60|90|1.5",
    "duration|Duration|minutes|hours|/ 60|90|1.5", "duration|Duration|hours|minutes|* 60|2|120", "duration|Duration|days|hours|* 24|2|48",
    "weight|Weight|grams|kilograms|/ 1000|500|0.5", "weight|Weight|kilograms|grams|* 1000|2|2000", "file size|FileSize|bytes|kilobytes|/ 1024|2048|2",
    "angle|Angle|degrees|turns|/ 360|90|0.25", "price|Price|cents|euros|/ 100|250|2.5", "price|Price|cents|dollars|/ 100|250|2.5")])  # fmt: skip

for slug, what, code, check in (
    ("cart", "a shopping cart that adds items and computes the total", '''
class ShoppingCart:
    """Hold items with their price and quantity."""

    def __init__(self) -> None:
        """Start with no items."""
        self.items: list[tuple[str, float, int]] = []

    def add(self, name: str, price: float, quantity: int = 1) -> None:
        """Add an item."""
        self.items.append((name, price, quantity))

    def total(self) -> float:
        """Return the total price."""
        return sum(price * quantity for _, price, quantity in self.items)
''', 'c = ShoppingCart()\nc.add("tea", 2.0, 3)\nc.add("cup", 4.0)\nassert c.total() == 10.0'),
    ("inventory", "an inventory that tracks the quantity of each item", '''
class Inventory:
    """Track how many of each item are in stock."""

    def __init__(self) -> None:
        """Start with no stock."""
        self.stock: dict[str, int] = {}

    def add(self, item: str, quantity: int = 1) -> None:
        """Add some of an item."""
        self.stock[item] = self.stock.get(item, 0) + quantity

    def remove(self, item: str, quantity: int = 1) -> None:
        """Remove some of an item."""
        if self.stock.get(item, 0) < quantity:
            raise ValueError(f"Not enough {item} in stock")
        self.stock[item] -= quantity
''', 'c = Inventory()\nc.add("nut", 5)\nc.remove("nut", 2)\nassert c.stock == {"nut": 3}'),
    ("matrix", "a matrix that supports addition and transposition", '''
class Matrix:
    """Represent a matrix as a list of rows."""

    def __init__(self, rows: list[list[float]]) -> None:
        """Store the rows."""
        self.rows = rows

    def __add__(self, other: "Matrix") -> "Matrix":
        """Add two matrices of the same shape."""
        pairs = zip(self.rows, other.rows)
        return Matrix([[a + b for a, b in zip(x, y)] for x, y in pairs])

    def transpose(self) -> "Matrix":
        """Swap rows and columns."""
        return Matrix([list(column) for column in zip(*self.rows)])
''', "m = Matrix([[1, 2], [3, 4]])\nassert m.transpose().rows == [[1, 3], [2, 4]]\nassert (m + m).rows == [[2, 4], [6, 8]]"),
    ("timer", "a timer with start and stop methods", '''
import time


class Timer:
    """Measure elapsed time in seconds."""

    def __init__(self) -> None:
        """Create a stopped timer."""
        self.started = 0.0

    def start(self) -> None:
        """Start the timer."""
        self.started = time.perf_counter()

    def stop(self) -> float:
        """Return the seconds since the start."""
        return time.perf_counter() - self.started
''', "t = Timer()\nt.start()\nassert t.stop() >= 0"),
    ("money", "an amount of money with a currency that supports addition", '''
from dataclasses import dataclass


@dataclass(frozen=True)
class Money:
    """Represent an amount in a currency."""

    amount: int
    currency: str

    def __add__(self, other: "Money") -> "Money":
        """Add two amounts in the same currency."""
        if self.currency != other.currency:
            raise ValueError("Currencies differ")
        return Money(self.amount + other.amount, self.currency)
''', 'assert Money(2, "EUR") + Money(3, "EUR") == Money(5, "EUR")'),
    ("traffic-light", "a traffic light that works as a simple state machine", '''
class TrafficLight:
    """Switch between green, yellow and red."""

    NEXT = {"green": "yellow", "yellow": "red", "red": "green"}

    def __init__(self) -> None:
        """Start with red."""
        self.state = "red"

    def change(self) -> str:
        """Go to the next state and return it."""
        self.state = self.NEXT[self.state]
        return self.state
''', 't = TrafficLight()\nassert [t.change() for _ in range(3)] == ["green", "yellow", "red"]'),
):  # fmt: skip
    add(f"class/{slug}", "class", what, code, check)

# ---------------------------------------------------------------- files and data

PATH_CHECK = "import pathlib, tempfile\nd = pathlib.Path(tempfile.mkdtemp())\np = d / 'a.txt'\n"
COUNTS = (
    "lines|sum(1 for _ in file)|3", "words|sum(len(line.split()) for line in file)|5",
    "characters|len(file.read())|12", "empty lines|sum(1 for line in file if not line.strip())|1",
    "non-empty lines|sum(1 for line in file if line.strip())|2",
    "different words|len(set(file.read().split()))|4", "digits|sum(char.isdigit() for char in file.read())|1",
    "spaces|file.read().count(\" \")|4", "vowels|sum(char in \"aeiou\" for char in file.read().lower())|2",
)  # fmt: skip
add("file/count", "function", "counts the <<noun>> in a text file", '''
def count_<<id>>(path: str) -> int:
    """Return the number of <<noun>> in the file."""
    with open(path, encoding="utf-8") as file:
        return <<expr>>
''', PATH_CHECK + 'p.write_text("a b\\n\\na z 1 \\n")\nassert count_<<id>>(str(p)) == <<res>>', "key noun expr res id", [
    f"{c.split('|')[0].replace(' ', '-')}|{c}|{re.sub('[ -]', '_', c.split('|')[0])}" for c in COUNTS])  # fmt: skip

for slug, noun, type_, expr, res in (
    ("lines", "the lines of a text file as a list", "list[str]", "file.read().splitlines()", '["b 1", "", "a 2"]'),
    ("text", "the whole text of a file", "str", "file.read()", '"b 1\\n\\na 2\\n"'),
    ("first_line", "the first line of a text file", "str", 'file.readline().rstrip("\\n")', '"b 1"'),
    ("last_line", "the last line of a text file", "str", "file.read().splitlines()[-1]", '"a 2"'),
    ("longest_line", "the longest line of a text file", "str", "max(file.read().splitlines(), key=len)", '"b 1"'),
    ("sorted_lines", "the lines of a text file in sorted order", "list[str]", "sorted(file.read().splitlines())", '["", "a 2", "b 1"]'),
    ("words", "the words of a text file as a list", "list[str]", "file.read().split()", '["b", "1", "a", "2"]'),
    ("reversed_lines", "the lines of a text file in reverse order", "list[str]", "file.read().splitlines()[::-1]", '["a 2", "", "b 1"]'),
):  # fmt: skip
    add(f"file/read-{slug}", "function", f"reads {noun}", f'''
def read_{slug}(path: str) -> {type_}:
    """Return {noun}."""
    with open(path, encoding="utf-8") as file:
        return {expr}
''', PATH_CHECK + f'p.write_text("b 1\\n\\na 2\\n")\nassert read_{slug}(str(p)) == {res}')  # fmt: skip

add("file/put", "function", "<<verb>> <<noun>> to a text file", '''
def <<v>>_<<id>>(path: str, <<arg>>) -> None:
    """<<V>> <<noun>> to the file."""
    with open(path, "<<mode>>", encoding="utf-8") as file:
        <<body>>
''', PATH_CHECK + "<<v>>_<<id>>(str(p), <<val>>)\n<<v>>_<<id>>(str(p), <<val>>)\nassert p.read_text() == <<res>> * <<times>>",
    "key verb v V mode times noun id arg body val res",
    [f"{v}/{r.split('|')[1]}|{v}s|{v}|{v.title()}|{m}|{t}|{r}" for (v, m, t), r in product((("write", "w", 1), ("append", "a", 2)), (
        'a text|text|text: str|file.write(text)|"hi"|"hi"', 'a line|line|line: str|file.write(line + "\\n")|"hi"|"hi\\n"',
        'a list of lines|lines|lines: list[str]|file.writelines(line + "\\n" for line in lines)|["a", "b"]|"a\\nb\\n"',
        'a list of numbers|numbers|numbers: list[int]|file.writelines(f"{number}\\n" for number in numbers)|[1, 2]|"1\\n2\\n"'))],
    outro="The `with` statement closes the file even when an error occurs.")  # fmt: skip

add(
    "file/json-load",
    "function",
    "loads a JSON file",
    '''
import json


def load_json(path: str) -> object:
    """Return the data stored in the JSON file."""
    with open(path, encoding="utf-8") as file:
        return json.load(file)
''',
    PATH_CHECK + 'p.write_text("[1, 2]")\nassert load_json(str(p)) == [1, 2]',
)
add(
    "file/json-save",
    "function",
    "saves data to a JSON file with an indent of <<n>>",
    '''
import json


def save_json(data: object, path: str) -> None:
    """Write the data to the JSON file."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump(data, file, indent=<<n>>)
''',
    PATH_CHECK
    + 'import json\nsave_json({"a": 1}, str(p))\nassert json.loads(p.read_text()) == {"a": 1}\nassert " " * <<n>> in p.read_text()',
    "n",
    "1234568",
)
COLUMNS = "price quantity score age salary amount weight points total cost".split()
add("file/csv", "function", "returns the <<agg>> of the <<col>> column of a CSV file", '''
import csv


def <<agg>>_<<col>>(path: str) -> float:
    """Return the <<agg>> of the <<col>> column."""
    with open(path, newline="", encoding="utf-8") as file:
        values = [float(row["<<col>>"]) for row in csv.DictReader(file)]
    return <<expr>>
''', PATH_CHECK + 'p.write_text("id,<<col>>\\n1,2\\n2,4\\n")\nassert <<agg>>_<<col>>(str(p)) == <<res>>', "key agg expr res col", [
    f"{r.split('|')[0]}/{c}|{r}|{c}" for r, c in product(("sum|sum(values)|6", "maximum|max(values)|4", "minimum|min(values)|2", "average|sum(values) / len(values)|3"), COLUMNS)])  # fmt: skip
add(
    "file/csv-read",
    "function",
    "reads a CSV file into a list of dictionaries",
    '''
import csv


def read_csv(path: str) -> list[dict[str, str]]:
    """Return one dictionary for each row."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
''',
    PATH_CHECK + 'p.write_text("a,b\\n1,2\\n")\nassert read_csv(str(p)) == [{"a": "1", "b": "2"}]',
)
add(
    "file/csv-write",
    "function",
    "writes a list of dictionaries to a CSV file",
    '''
import csv


def write_csv(path: str, rows: list[dict[str, object]]) -> None:
    """Write the rows with a header line."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
''',
    PATH_CHECK + 'write_csv(str(p), [{"a": 1, "b": 2}])\nassert p.read_text().split() == ["a,b", "1,2"]',
)
add("file/config", "function", "parses <<a>> config text with key<<sep>>value lines and <<c>> comments", '''
def parse_config(text: str) -> dict[str, str]:
    """Return the settings as a dictionary."""
    settings = {}
    for line in text.splitlines():
        line = line.strip()
        if line and not line.startswith("<<c>>"):
            key, _, value = line.partition("<<sep>>")
            settings[key.strip()] = value.strip()
    return settings
'''.replace("<<a>> ", ""), 'assert parse_config("<<c>> hi\\na <<sep>> 1\\n\\nb<<sep>>2") == {"a": "1", "b": "2"}', "key sep c a",
    [f"{s}{c}|{s}|{c}|a" for s, c in product(("=", ":", "->", ":="), ("#", ";", "//"))])  # fmt: skip
add("file/glob", "function", "lists all <<ext>> files in a folder<<deep>>", '''
from pathlib import Path


def list_<<ext>>_files(folder: str) -> list[str]:
    """Return the names of the <<ext>> files, sorted."""
    return sorted(path.name for path in Path(folder).<<call>>("*.<<ext>>"))
''', PATH_CHECK + '(d / "a.<<ext>>").touch()\n(d / "b.other").touch()\nassert list_<<ext>>_files(str(d)) == ["a.<<ext>>"]', "key ext deep call",
    [f"{e}/{c}|{e}|{deep}|{c}" for e, (deep, c) in product("txt py csv json md png jpg html log pdf xml".split(), (("", "glob"), (" and its subfolders", "rglob")))])  # fmt: skip
add("file/path", "function", "returns <<what>>", '''
from pathlib import Path


def <<id>>(path: str) -> <<type>>:
    """Return <<what>>."""
    return Path(path).<<expr>>
''', PATH_CHECK + 'p.write_text("abc")\nassert <<id>>(str(p)) == <<res>>', "id what type expr res", (
    "file_size|the size of a file in bytes|int|stat().st_size|3", "file_name|the file name of a path|str|name|\"a.txt\"",
    "file_extension|the extension of a path|str|suffix|\".txt\"", "file_stem|the file name of a path without its extension|str|stem|\"a\"",
    "file_exists|whether a file exists|bool|is_file()|True", "folder_exists|whether a folder exists|bool|is_dir()|False",
    "parent_folder|the parent folder of a path as a Path|Path|parent|d",
    "file_bytes|the content of a file as bytes|bytes|read_bytes()|b\"abc\""))  # fmt: skip
add(
    "file/temp",
    "function",
    "writes text to a temporary file with the extension <<ext>> that is kept",
    '''
import tempfile


def write_temp_file(text: str) -> str:
    """Write the text to a new temporary file and return its path."""
    with tempfile.NamedTemporaryFile("w", suffix="<<ext>>", delete=False) as file:
        file.write(text)
    return file.name
''',
    'import pathlib\np = pathlib.Path(write_temp_file("hi"))\nassert p.read_text() == "hi"\nassert p.suffix == "<<ext>>"\np.unlink()',
    "ext",
    (".txt", ".json", ".csv", ".log"),
)
add("env/get", "function", "reads the environment variable <<var>> with the default <<default>>", '''
import os


def get_<<low>>() -> str:
    """Return the value of <<var>>, or "<<default>>" when it is not set."""
    return os.environ.get("<<var>>", "<<default>>")
''', 'os.environ.pop("<<var>>", None)\nassert get_<<low>>() == "<<default>>"', "key var low default",
    [f"{v}/{d}|DEMO_{v}|{v.lower()}|{d}" for v, d in product(("PORT", "HOST", "MODE", "LEVEL", "TOKEN", "COLOR", "LANGUAGE"), ("none", "auto", "default", "1"))])  # fmt: skip
OPTIONS = "name:str:world count:int:1 size:int:10 ratio:float:0.5 output:str:out.txt level:int:3 title:str:hello width:int:80 speed:float:1.5 seed:int:0".split()


def options(rng: Random) -> Row:
    """Choose one to three command line options."""
    picked = [OPTIONS[i].split(":") for i in sorted(rng.sample(range(len(OPTIONS)), rng.randint(1, 3)))]
    show = lambda t, d: f'"{d}"' if t == "str" else d  # noqa: E731
    return {
        "key": "-".join(o[0] for o in picked), "list": " and ".join(f"--{n} ({t}, default {d})" for n, t, d in picked),
        "lines": "\n".join(f'    parser.add_argument("--{n}", type={t}, default={show(t, d)})' for n, t, d in picked),
        "check": "\n".join(f"assert parse_args([]).{n} == {show(t, d)}" for n, t, d in picked),
    }  # fmt: skip


add(
    "cli/argparse",
    "function",
    "parses the command line options <<list>> with argparse",
    '''
import argparse


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line options."""
    parser = argparse.ArgumentParser()
<<lines>>
    return parser.parse_args(argv)
''',
    "<<check>>",
    rows=options,
)
add(
    "log/setup",
    "function",
    "creates a logger with the level <<level>>",
    '''
import logging


def create_logger(name: str) -> logging.Logger:
    """Return a logger which writes to the console."""
    logger = logging.getLogger(name)
    logger.setLevel(logging.<<level>>)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logger.addHandler(handler)
    return logger
''',
    'assert create_logger("demo").level == logging.<<level>>',
    "level",
    "DEBUG INFO WARNING ERROR CRITICAL".split(),
)

# ---------------------------------------------------------------- generators, decorators, contexts

SEQUENCES = [
    "even numbers|even|2 * i|0 2 4", "odd numbers|odd|2 * i + 1|1 3 5", "square numbers|square|i**2|0 1 4", "cube numbers|cube|i**3|0 1 8",
    "triangular numbers|triangular|i * (i + 1) // 2|0 1 3", "powers of two|power|2**i|1 2 4", "powers of three|power3|3**i|1 3 9",
    "powers of ten|power10|10**i|1 10 100", "negative numbers|negative|-(i + 1)|-1 -2 -3",
] + [f"multiples of {n}|multiple_{n}|{n} * i|0 {n} {2 * n}" for n in range(3, 21)]  # fmt: skip
SEQ_ROWS = []
for seq in SEQUENCES:
    noun, _, expr, values = seq.split("|")
    SEQ_ROWS.append(f"{noun.replace(' ', '-')}|{noun}|{noun.replace(' ', '_')}|{expr}|{values.replace(' ', ', ')}")
add(
    "gen/first",
    "generator",
    "yields the first n <<noun>>",
    '''
from collections.abc import Iterator


def <<id>>(n: int) -> Iterator[int]:
    """Yield the first n <<noun>>."""
    for i in range(n):
        yield <<expr>>
''',
    "assert list(<<id>>(3)) == [<<res>>]",
    "key noun id expr res",
    SEQ_ROWS,
    outro="For example, the first three are <<res>>.",
)
add("gen/endless", "generator", "yields <<noun>> without end", '''
from collections.abc import Iterator
from itertools import count


def endless_<<id>>() -> Iterator[int]:
    """Yield all <<noun>>, one after the other."""
    for i in count():
        yield <<expr>>
''', "from itertools import islice\nassert list(islice(endless_<<id>>(), 3)) == [<<res>>]", "key noun id expr res", SEQ_ROWS,
    outro="Use `itertools.islice` to take only some of the values.")  # fmt: skip
add(
    "iter/class",
    "iterator class",
    "the first n <<noun>>",
    '''
class <<N>>:
    """Iterate over the first n <<noun>>."""

    def __init__(self, n: int) -> None:
        """Set how many values there are."""
        self.n = n
        self.i = 0

    def __iter__(self) -> "<<N>>":
        """Return the iterator itself."""
        return self

    def __next__(self) -> int:
        """Return the next value."""
        if self.i >= self.n:
            raise StopIteration
        i = self.i
        self.i += 1
        return <<expr>>
''',
    "assert list(<<N>>(3)) == [<<res>>]",
    "key noun id expr res N",
    [r + "|" + r.split("|")[1].title().replace(" ", "") for r in SEQ_ROWS],
)
GEN = "from collections.abc import Iterator\n\n\n"
for slug, what, code, check in (
    ("countdown", "counts down from n to 1", 'def countdown(n: int) -> Iterator[int]:\n    """Yield n, n - 1 and so on down to 1."""\n    while n > 0:\n        yield n\n        n -= 1', "assert list(countdown(3)) == [3, 2, 1]"),
    ("chunks", "splits a list into chunks of a given size", 'def chunks(items: list, size: int) -> Iterator[list]:\n    """Yield parts of the list, each of the given size."""\n    for start in range(0, len(items), size):\n        yield items[start : start + size]', "assert list(chunks([1, 2, 3], 2)) == [[1, 2], [3]]"),
    ("windows", "yields all sliding windows of a given size over a list", 'def windows(items: list, size: int) -> Iterator[list]:\n    """Yield every run of neighbouring items of the given size."""\n    for start in range(len(items) - size + 1):\n        yield items[start : start + size]', "assert list(windows([1, 2, 3], 2)) == [[1, 2], [2, 3]]"),
    ("pairs", "yields each pair of neighbouring items of a list", 'def pairs(items: list) -> Iterator[tuple]:\n    """Yield each item together with the next one."""\n    yield from zip(items, items[1:])', "assert list(pairs([1, 2, 3])) == [(1, 2), (2, 3)]"),
    ("fibonacci", "yields the first n Fibonacci numbers", 'def fibonacci(n: int) -> Iterator[int]:\n    """Yield the first n Fibonacci numbers."""\n    a, b = 0, 1\n    for _ in range(n):\n        yield a\n        a, b = b, a + b', "assert list(fibonacci(6)) == [0, 1, 1, 2, 3, 5]"),
    ("running_total", "yields the running totals of a list of numbers", 'def running_total(numbers: list[float]) -> Iterator[float]:\n    """Yield the sum of the numbers so far."""\n    total = 0\n    for number in numbers:\n        total += number\n        yield total', "assert list(running_total([1, 2, 3])) == [1, 3, 6]"),
    ("flatten", "flattens nested lists", 'def flatten(items: list) -> Iterator[object]:\n    """Yield the items of nested lists."""\n    for item in items:\n        if isinstance(item, list):\n            yield from flatten(item)\n        else:\n            yield item', "assert list(flatten([1, [2, [3]]])) == [1, 2, 3]"),
):  # fmt: skip
    add(f"gen/{slug}", "generator", what, GEN + code, check)

WRAP = '''<<imp>>from collections.abc import Callable
from functools import wraps


def <<id>>(func: Callable) -> Callable:
    """<<doc>>"""

    @wraps(func)
    def wrapper(*args: object, **kwargs: object) -> object:
<<body>>

    return wrapper
'''
add("deco/plain", "decorator", "<<what>>", WRAP, "<<check>>", "id what doc imp body check", (
    'timed|prints how long a function takes|Print how long each call takes.|import time\n|        start = time.perf_counter()\n        result = func(*args, **kwargs)\n        print(f"{func.__name__} took {time.perf_counter() - start:.3f} s")\n        return result|import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()):\n    assert timed(lambda x: x + 1)(2) == 3',
    'log_calls|prints the name of a function when it is called|Print the name of the function at each call.||        print(f"Calling {func.__name__}")\n        return func(*args, **kwargs)|import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()):\n    assert log_calls(lambda x: x + 1)(2) == 3',
    'count_calls|counts how often a function is called|Count the calls in the attribute `calls`.||        wrapper.calls += 1\n        return func(*args, **kwargs)\n\n    wrapper.calls = 0|g = count_calls(lambda: 1)\ng()\ng()\nassert g.calls == 2',
    'memoize|caches the results of a function|Remember the result for each set of arguments.||        key = (args, tuple(sorted(kwargs.items())))\n        if key not in cache:\n            cache[key] = func(*args, **kwargs)\n        return cache[key]\n\n    cache: dict = {}|calls = []\ng = memoize(lambda x: calls.append(x) or x * 2)\nassert g(2) == 4 and g(2) == 4 and calls == [2]',
    'uppercase|converts the result of a function to upper case|Convert the result to upper case.||        return str(func(*args, **kwargs)).upper()|assert uppercase(lambda: "hi")() == "HI"',
    'run_once|runs a function only once and then returns the first result|Run the function at the first call only.||        if not results:\n            results.append(func(*args, **kwargs))\n        return results[0]\n\n    results: list = []|g = run_once(lambda x: x)\nassert g(1) == 1 and g(2) == 1',
    'not_none|raises a ValueError when a function returns None|Reject a result of None.||        result = func(*args, **kwargs)\n        if result is None:\n            raise ValueError(f"{func.__name__} returned None")\n        return result|assert not_none(lambda: 0)() == 0',
    'positive_args|checks that all positional arguments of a function are positive|Reject arguments which are not positive.||        if any(arg <= 0 for arg in args):\n            raise ValueError("Arguments must be positive")\n        return func(*args, **kwargs)|assert positive_args(lambda x: x)(1) == 1\ntry:\n    positive_args(lambda x: x)(-1)\nexcept ValueError:\n    pass\nelse:\n    raise AssertionError',
    'to_list|converts the result of a function to a list|Convert the result to a list.||        return list(func(*args, **kwargs))|assert to_list(lambda n: range(n))(2) == [0, 1]',
))  # fmt: skip
ERRORS = "ValueError TypeError KeyError OSError ZeroDivisionError RuntimeError IndexError ConnectionError".split()
DECO = '''from collections.abc import Callable
from functools import wraps


def {head} -> Callable:
    """{doc}"""

    def decorator(func: Callable) -> Callable:
        """Wrap the function."""

        @wraps(func)
        def wrapper(*args: object, **kwargs: object) -> object:
{body}

        return wrapper

    return decorator
'''
add("deco/retry", "decorator", "tries a function up to a given number of times on <<e>>", DECO.format(
    head="retry(times: int)", doc="Call the function again when it raises <<e>>.", body='''            for attempt in range(times):
                try:
                    return func(*args, **kwargs)
                except <<e>>:
                    if attempt == times - 1:
                        raise'''),
    "calls = []\n\n@retry(3)\ndef g():\n    calls.append(1)\n    if len(calls) < 3:\n        raise <<e>>\n    return 7\n\nassert g() == 7", "e", ERRORS + ["Exception"],
    outro="The last failed attempt raises the error again.")  # fmt: skip
add("deco/fallback", "decorator", "returns a default value when a function raises <<e>>", DECO.format(
    head="fallback(default: object)", doc="Return the default when the function raises <<e>>.", body='''            try:
                return func(*args, **kwargs)
            except <<e>>:
                return default'''), "@fallback(5)\ndef g():\n    raise <<e>>\n\nassert g() == 5", "e", ERRORS + ["Exception"])  # fmt: skip
add("deco/repeat", "decorator", "calls a function a given number of times and <<what>>", DECO.format(
    head="repeat(times: int)", doc="Call the function several times.", body='''            results = [func(*args, **kwargs) for _ in range(times)]
            return <<expr>>'''), "g = repeat(3)(lambda x: x)\nassert g(2) == <<res>>", "key what expr res", (
    "last|returns the last result|results[-1]|2", "list|returns all results|results|[2, 2, 2]", "sum|returns the sum of the results|sum(results)|6", "first|returns the first result|results[0]|2"))  # fmt: skip
CTX = '''<<imp>>from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def <<id>>:
    """<<doc>>"""
<<body>>
'''
add("context/manager", "context manager", "<<what>>", CTX, "<<check>>", "key what id doc imp body check", (
    'timer|prints the time spent in a block|timer() -> Iterator[None]|Print the seconds spent in the block.|import time\n|    start = time.perf_counter()\n    try:\n        yield\n    finally:\n        print(f"{time.perf_counter() - start:.3f} s")|import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()) as out:\n    with timer():\n        pass\nassert out.getvalue().endswith(" s\\n")',
    'chdir|changes the working directory for a block|working_directory(path: str) -> Iterator[None]|Change the working directory and restore it afterwards.|import os\n|    previous = os.getcwd()\n    os.chdir(path)\n    try:\n        yield\n    finally:\n        os.chdir(previous)|import os, tempfile\nhere = os.getcwd()\nwith working_directory(tempfile.gettempdir()):\n    pass\nassert os.getcwd() == here',
    'env|sets an environment variable for a block|environment(name: str, value: str) -> Iterator[None]|Set the variable and restore it afterwards.|import os\n|    previous = os.environ.get(name)\n    os.environ[name] = value\n    try:\n        yield\n    finally:\n        if previous is None:\n            del os.environ[name]\n        else:\n            os.environ[name] = previous|with environment("DEMO_Q", "1"):\n    assert os.environ["DEMO_Q"] == "1"\nassert "DEMO_Q" not in os.environ',
    'open|opens a text file and closes it at the end|opened(path: str) -> Iterator[object]|Open the file and close it at the end.||    file = open(path, encoding="utf-8")\n    try:\n        yield file\n    finally:\n        file.close()|import os\nwith opened(os.devnull) as g:\n    pass\nassert g.closed',
))  # fmt: skip
add(
    "context/ignore",
    "context manager",
    "ignores <<e>> in a block",
    '''
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ignore_<<low>>() -> Iterator[None]:
    """Ignore <<e>> raised in the block."""
    try:
        yield
    except <<e>>:
        pass
''',
    "with ignore_<<low>>():\n    raise <<e>>",
    "e low",
    [f"{e}|{re.sub('(?<=[a-z])(?=[A-Z])', '_', e).lower()}" for e in ERRORS],
)

# ---------------------------------------------------------------- dates and times


def functions(group: str, table: str) -> None:
    """Register a function family from "what|head|doc|expression|check|imports" lines."""
    rows = [line for line in table.strip().splitlines()]
    add(group, "function", "<<what>>", '<<imp>>def <<head>>:\n    """<<doc>>"""\n    return <<expr>>', "<<check>>",
        "key what head doc expr check imp",
        [f"{re.match(r'[a-z_0-9]+', r.split('|')[1])[0]}|" + re.sub(r"(?<=\|)([a-z][^|]*)$", lambda m: m[1].replace("; ", "\n") + "\n\n\n", r) for r in rows])  # fmt: skip


functions("date/basic", '''
returns the number of days between two dates|days_between(start: date, end: date) -> int|Return the number of days from start to end.|(end - start).days|assert days_between(date(2024, 2, 1), date(2024, 3, 1)) == 29|from datetime import date
returns the weekday name of a date|weekday_name(day: date) -> str|Return a name such as "Monday".|day.strftime("%A")|assert weekday_name(date(2024, 1, 1)) == "Monday"|from datetime import date
tells whether a date is on a weekend|is_weekend(day: date) -> bool|Return True for Saturday and Sunday.|day.weekday() >= 5|assert is_weekend(date(2024, 1, 6)) == True|from datetime import date
tells whether a year is a leap year|is_leap_year(year: int) -> bool|Return True when the year has 366 days.|year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)|assert is_leap_year(1900) == False|
returns the last day of a month|last_day(year: int, month: int) -> int|Return the number of days in the month.|monthrange(year, month)[1]|assert last_day(2024, 2) == 29|from calendar import monthrange
computes the age in years on a given day|age(born: date, today: date) -> int|Return the full years from birth to today.|today.year - born.year - ((today.month, today.day) < (born.month, born.day))|assert age(date(2000, 5, 2), date(2020, 5, 1)) == 19|from datetime import date
returns the quarter of a date|quarter(day: date) -> int|Return the quarter from 1 to 4.|(day.month - 1) // 3 + 1|assert quarter(date(2024, 4, 1)) == 2|from datetime import date
returns the day of the year of a date|day_of_year(day: date) -> int|Return a number from 1 to 366.|day.timetuple().tm_yday|assert day_of_year(date(2024, 2, 1)) == 32|from datetime import date
returns the first day of the month of a date|month_start(day: date) -> date|Return the first day of the same month.|day.replace(day=1)|assert month_start(date(2024, 2, 9)) == date(2024, 2, 1)|from datetime import date
returns the ISO week number of a date|week_number(day: date) -> int|Return the ISO week number.|day.isocalendar().week|assert week_number(date(2024, 1, 8)) == 2|from datetime import date
''')  # fmt: skip
FORMATS = "%Y-%m-%d %d.%m.%Y %d/%m/%Y %m/%d/%Y %Y/%m/%d %Y%m%d %d-%m-%Y %m-%d-%Y %Y.%m.%d %d%m%Y".split()
add(
    "date/parse",
    "function",
    "parses a date in the format <<fmt>>",
    '''
from datetime import date, datetime


def parse_date(text: str) -> date:
    """Return the date written as <<fmt>>."""
    return datetime.strptime(text, "<<fmt>>").date()
''',
    'assert parse_date(date(2024, 3, 1).strftime("<<fmt>>")) == date(2024, 3, 1)',
    "fmt",
    FORMATS,
    outro="",
)
add("date/format", "function", "formats a date as <<fmt>>", '''
from datetime import date


def format_date(day: date) -> str:
    """Return the date written as <<fmt>>."""
    return day.strftime("<<fmt>>")
''', 'assert format_date(date(2024, 3, 1)) == "<<res>>"', "fmt res", [
    f + "|" + f.replace("%Y", "2024").replace("%m", "03").replace("%d", "01") for f in FORMATS])  # fmt: skip
add("date/shift", "function", "<<verb>> <<n>> <<unit>> <<to>> a datetime", '''
from datetime import datetime, timedelta


def <<v>>_<<n>>_<<unit>>(moment: datetime) -> datetime:
    """Return the moment <<n>> <<unit>> <<when>>."""
    return moment <<op>> timedelta(<<unit>>=<<n>>)
''', "x = datetime(2024, 1, 1)\nassert abs((<<v>>_<<n>>_<<unit>>(x) - x) / timedelta(<<unit>>=1)) == <<n>>", "key verb v to when op n unit",
    [f"{v.split('|')[1]}/{n}/{u}|{v}|{n}|{u}" for v, n, u in product(("adds|add|to|later|+", "subtracts|subtract|from|earlier|-"), (2, 3, 5, 7, 10, 14, 30, 45), ("days", "hours", "minutes", "weeks"))])  # fmt: skip

# ---------------------------------------------------------------- errors and higher-order

functions("higher/basic", '''
composes two functions|compose(f: Callable, g: Callable) -> Callable|Return the function x -> f(g(x)).|lambda x: f(g(x))|assert compose(lambda x: x + 1, lambda x: x * 2)(3) == 7|from collections.abc import Callable
fixes the first argument of a function|bind_first(func: Callable, value: object) -> Callable|Return the function with its first argument fixed.|partial(func, value)|assert bind_first(pow, 2)(3) == 8|from collections.abc import Callable; from functools import partial
applies a list of functions to a value one after the other|pipeline(value: object, functions: list[Callable]) -> object|Pass the value through all functions.|reduce(lambda result, func: func(result), functions, value)|assert pipeline(3, [lambda x: x + 1, lambda x: x * 2]) == 8|from collections.abc import Callable; from functools import reduce
swaps the two arguments of a function|flip(func: Callable) -> Callable|Return the function with its arguments swapped.|lambda a, b: func(b, a)|assert flip(pow)(2, 3) == 9|from collections.abc import Callable
negates a predicate|negate(predicate: Callable) -> Callable|Return the opposite predicate.|lambda x: not predicate(x)|assert negate(bool)(0) == True|from collections.abc import Callable
applies a function to every item of a list|apply_all(func: Callable, items: list) -> list|Return the results for all items.|[func(item) for item in items]|assert apply_all(abs, [-1, 2]) == [1, 2]|from collections.abc import Callable
curries a function of two arguments|curry(func: Callable) -> Callable|Return a chain of two functions with one argument each.|lambda a: lambda b: func(a, b)|assert curry(pow)(2)(3) == 8|from collections.abc import Callable
''')  # fmt: skip
add(
    "higher/apply-n",
    "function",
    "applies a function n times to a value",
    '''
from collections.abc import Callable


def apply_n(func: Callable, value: object, n: int) -> object:
    """Return the value after n calls of the function."""
    for _ in range(n):
        value = func(value)
    return value
''',
    "assert apply_n(lambda x: x * 2, 1, 5) == 32",
)
add("higher/factory", "function", "returns a function that <<what>>", '''
from collections.abc import Callable


def make_<<id>>(n: float) -> Callable[[float], float]:
    """Return a function that <<what>>."""
    return lambda x: <<expr>>
''', "assert make_<<id>>(2)(6) == <<res>>", "id what expr res", (
    "adder|adds n|x + n|8", "subtractor|subtracts n|x - n|4", "multiplier|multiplies by n|x * n|12", "divider|divides by n|x / n|3",
    "power|raises to the power n|x**n|36", "maximum|returns the larger of x and n|max(x, n)|6", "minimum|returns the smaller of x and n|min(x, n)|2"))  # fmt: skip
add("error/parse", "function", "parses <<noun>> and returns <<d>> when the text is invalid", '''
<<imp>>def parse_<<id>>(text: str) -> <<type>>:
    """Return the parsed value, or <<d>> when the text is invalid."""
    try:
        return <<expr>>
    except ValueError:
        return <<d>>
''', 'assert parse_<<id>>("???") == <<d>>\nassert parse_<<id>>("<<ok>>") == <<res>>', "key id noun type imp expr ok res d dt",
    [f"{k}/{d}|{k}|{noun}|{kind if t in (kind, '') or kind == 'object' else f'{kind} ¦ {t}'}|{rest}|{d}|{t}" for r, (d, t) in product((
        "int|an integer|int||int(text)|12|12", "float|a float|float||float(text)|1.5|1.5", "json|JSON text|object|import json\n\n\n|json.loads(text)|[1]|[1]",
        "date|an ISO date|date|from datetime import date\n\n\n|date.fromisoformat(text)|2024-01-02|date(2024, 1, 2)",
        "hex|a hexadecimal number|int||int(text, 16)|ff|255", "binary|a binary number|int||int(text, 2)|101|5"), (("None", "None"), ("0", "int"), ("-1", "int"), ('""', "str")))
     for k, noun, kind, rest in [r.split('|', 3)]])  # fmt: skip
add(
    "error/divide",
    "function",
    "divides two numbers and returns <<d>> when the divisor is zero",
    '''
def safe_divide(a: float, b: float) -> <<type>>:
    """Return a / b, or <<d>> when b is zero."""
    try:
        return a / b
    except ZeroDivisionError:
        return <<d>>
''',
    "assert safe_divide(6, 3) == 2.0\nassert safe_divide(1, 0) == <<d>>",
    "d type",
    ("None|float ¦ None", "0|float", "1|float", "-1|float", "0.0|float"),
)
add("error/check", "function", "raises <<a>> <<e>> when <<arg>> is <<what>>", '''
def check_<<arg>>(<<arg>>: <<type>>) -> <<type>>:
    """Return the <<arg>> unless it is <<what>>."""
    if <<cond>>:
        raise <<e>>("<<arg>> must not be <<what>>")
    return <<arg>>
''', "assert check_<<arg>>(<<ok>>) == <<ok>>\ntry:\n    check_<<arg>>(<<bad>>)\nexcept <<e>>:\n    pass\nelse:\n    raise AssertionError", "key arg type e a what cond ok bad",
    [f"{a}/{k}/{e}|{a}|{t}|{e}|{'an' if e[0] in 'AEIO' else 'a'}|{w}|{c.replace('%', a, 1)}|{ok}|{bad}" for e, (t, args, conds) in product(("ValueError", "TypeError", "RuntimeError", "AssertionError"), (
        ("int", "age count size level score year price".split(), (("neg", "negative", "% < 0", "3", "-1"), ("zero", "zero", "% == 0", "3", "0"), ("big", "greater than 100", "% > 100", "3", "101"), ("odd", "odd", "% % 2 == 1", "4", "3"))),
        ("str", "name email title city password".split(), (("empty", "empty", "not %", '"abcde"', '""'), ("long", "longer than 20 characters", "len(%) > 20", '"abcde"', '"a" * 21'), ("short", "shorter than 4 characters", "len(%) < 4", '"abcde"', '"ab"')))))
     for a in args for k, w, c, ok, bad in conds])  # fmt: skip
add("error/custom", "exception", "an invalid <<noun>> that stores the <<noun>>", '''
class <<N>>Error(Exception):
    """Report an invalid <<noun>>."""

    def __init__(self, <<noun>>: str) -> None:
        """Store the <<noun>>."""
        super().__init__(f"Invalid <<noun>>: {<<noun>>}")
        self.<<noun>> = <<noun>>
''', 'assert <<N>>Error("x").<<noun>> == "x"\nassert str(<<N>>Error("x")) == "Invalid <<noun>>: x"', "noun N",
    [f"{w}|{w.title()}" for w in "user password email account order product file token address color date code city".split()])  # fmt: skip

# ---------------------------------------------------------------- recursion and classics

functions("classic/short", r'''
returns the number of moves of the Tower of Hanoi|hanoi_moves(n: int) -> int|Return the fewest moves for n disks.|0 if n == 0 else 2 * hanoi_moves(n - 1) + 1|assert hanoi_moves(3) == 7|
returns all permutations of a string|permutations_of(text: str) -> list[str]|Return every order of the characters.|["".join(chars) for chars in permutations(text)]|assert permutations_of("ab") == ["ab", "ba"]|from itertools import permutations
computes the sum of a nested list recursively|nested_sum(items: list) -> int|Add up the numbers at every level.|sum(nested_sum(x) if isinstance(x, list) else x for x in items)|assert nested_sum([1, [2, [3]]]) == 6|
generates a random password of a given length|password(length: int) -> str|Return random letters and digits.|"".join(secrets.choice(ascii_letters + digits) for _ in range(length))|assert len(password(9)) == 9|import secrets; from string import ascii_letters, digits
returns the multiplication table up to n as a list of rows|multiplication_table(n: int) -> list[list[int]]|Return the products of 1 to n.|[[a * b for b in range(1, n + 1)] for a in range(1, n + 1)]|assert multiplication_table(2) == [[1, 2], [2, 4]]|
returns the host name of a URL|url_host(url: str) -> str|Return the host of the URL.|urlparse(url).hostname or ""|assert url_host("https://a.org/b?c=1") == "a.org"|from urllib.parse import urlparse
returns the path of a URL|url_path(url: str) -> str|Return the path of the URL.|urlparse(url).path|assert url_path("https://a.org/b?c=1") == "/b"|from urllib.parse import urlparse
returns the query parameters of a URL as a dictionary|url_query(url: str) -> dict[str, str]|Return the query parameters.|dict(parse_qsl(urlparse(url).query))|assert url_query("https://a.org/b?c=1") == {"c": "1"}|from urllib.parse import parse_qsl, urlparse
''')  # fmt: skip
for slug, what, code, check in (
    ("hanoi", "returns the moves that solve the Tower of Hanoi", 'def hanoi(n: int, source: str, spare: str, target: str) -> list[tuple[str, str]]:\n    """Return the moves from source to target."""\n    if n == 0:\n        return []\n    before = hanoi(n - 1, source, target, spare)\n    after = hanoi(n - 1, spare, source, target)\n    return before + [(source, target)] + after', 'assert hanoi(2, "A", "B", "C") == [("A", "B"), ("A", "C"), ("B", "C")]'),
    ("depth", "returns the depth of a nested list", 'def nested_depth(items: object) -> int:\n    """Return how deeply the lists are nested."""\n    if not isinstance(items, list):\n        return 0\n    return 1 + max((nested_depth(item) for item in items), default=0)', "assert nested_depth([1, [2, [3]]]) == 3"),
    ("power-set", "returns the power set of a list", 'def power_set(items: list) -> list[list]:\n    """Return all subsets of the items."""\n    if not items:\n        return [[]]\n    rest = power_set(items[1:])\n    return rest + [[items[0]] + subset for subset in rest]', "assert power_set([1, 2]) == [[], [2], [1], [1, 2]]"),
    ("ackermann", "computes the Ackermann function", 'def ackermann(m: int, n: int) -> int:\n    """Return the Ackermann function of m and n."""\n    if m == 0:\n        return n + 1\n    if n == 0:\n        return ackermann(m - 1, 1)\n    return ackermann(m - 1, ackermann(m, n - 1))', "assert ackermann(2, 3) == 9"),
    ("binary-search", "finds an item in a sorted list with recursive binary search", 'def binary_search(items: list, target: int, low: int, high: int) -> int:\n    """Return the index of the target from low to high, or -1."""\n    if low > high:\n        return -1\n    middle = (low + high) // 2\n    if items[middle] == target:\n        return middle\n    if items[middle] < target:\n        return binary_search(items, target, middle + 1, high)\n    return binary_search(items, target, low, middle - 1)', "assert binary_search([1, 3, 5], 5, 0, 2) == 2\nassert binary_search([1, 3], 2, 0, 1) == -1"),
    ("tic-tac-toe", "returns the winner of a tic-tac-toe board", 'def winner(board: list[str]) -> str | None:\n    """Return the player with three in a row on a board of three strings."""\n    columns = ["".join(column) for column in zip(*board)]\n    diagonals = ["".join(board[i][i] for i in range(3))]\n    diagonals.append("".join(board[i][2 - i] for i in range(3)))\n    for line in board + columns + diagonals:\n        if line in ("XXX", "OOO"):\n            return line[0]\n    return None', 'assert winner(["XO ", "XO ", "X  "]) == "X"\nassert winner(["XO ", "   ", "   "]) is None'),
    ("life", "computes one step of the Game of Life", 'from collections import Counter\n\n\ndef life_step(cells: set[tuple[int, int]]) -> set[tuple[int, int]]:\n    """Return the next generation of the live cells."""\n    steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]\n    counts = Counter((x + i, y + j) for x, y in cells for i, j in steps)\n    return {c for c, n in counts.items() if n == 3 or (n == 2 and c in cells)}', "assert life_step({(0, 0), (0, 1), (0, 2)}) == {(-1, 1), (0, 1), (1, 1)}"),
    ("rock-paper-scissors", "decides a round of rock paper scissors", 'def play(first: str, second: str) -> str:\n    """Return "first", "second" or "draw"."""\n    beats = {"rock": "scissors", "scissors": "paper", "paper": "rock"}\n    if first == second:\n        return "draw"\n    return "first" if beats[first] == second else "second"', 'assert play("rock", "scissors") == "first"'),
    ("rpn", "evaluates an expression in reverse Polish notation", 'import operator\n\n\ndef evaluate_rpn(text: str) -> float:\n    """Return the value of the expression."""\n    operators = {\n        "+": operator.add,\n        "-": operator.sub,\n        "*": operator.mul,\n        "/": operator.truediv,\n    }\n    stack: list[float] = []\n    for token in text.split():\n        if token in operators:\n            right, left = stack.pop(), stack.pop()\n            stack.append(operators[token](left, right))\n        else:\n            stack.append(float(token))\n    return stack.pop()', 'assert evaluate_rpn("3 4 + 2 *") == 14.0'),
    ("tokenizer", "splits an arithmetic expression into tokens", 'import re\n\n\ndef tokenize(text: str) -> list[str]:\n    """Return the numbers, operators and parentheses."""\n    return re.findall(r"\\d+(?:\\.\\d+)?|[-+*/()]", text)', 'assert tokenize("2*(3+41)") == ["2", "*", "(", "3", "+", "41", ")"]'),
    ("guess", "compares a guess with a secret number", 'def check_guess(secret: int, guess: int) -> str:\n    """Return "too low", "too high" or "correct"."""\n    if guess < secret:\n        return "too low"\n    if guess > secret:\n        return "too high"\n    return "correct"', 'assert check_guess(7, 3) == "too low"'),
    ("interest", "returns the balance after each year of compound interest", 'def interest_table(balance: float, rate: float, years: int) -> list[float]:\n    """Return the balance at the end of each year, rate in percent."""\n    table = []\n    for _ in range(years):\n        balance *= 1 + rate / 100\n        table.append(round(balance, 2))\n    return table', "assert interest_table(100, 10, 2) == [110.0, 121.0]"),
    ("diamond", "returns a diamond of stars as a string", 'def diamond(n: int) -> str:\n    """Return a diamond whose middle row is row n."""\n    widths = list(range(1, n + 1)) + list(range(n - 1, 0, -1))\n    return "\\n".join(" " * (n - w) + "*" * (2 * w - 1) for w in widths)', 'assert diamond(2) == " *\\n***\\n *"'),
):  # fmt: skip
    add(f"classic/{slug}", "function", what, code, check)
add("classic/dice", "function", "rolls <<n>> dice with <<sides>> sides and returns <<what>>", '''
import random


def roll_dice() -> <<type>>:
    """Roll <<n>> dice with <<sides>> sides each."""
    rolls = [random.randint(1, <<sides>>) for _ in range(<<n>>)]
    return <<expr>>
''', "x = roll_dice()\nassert <<test>>", "key n sides what type expr test",
    [f"{n}d{s}/{w}|{n}|{s}|{w}|{t}|{e}|{c}" for n, s, (w, t, e, c) in product((2, 3, 4, 5), (4, 6, 8, 10, 12, 20), (
        ("the sum", "int", "sum(rolls)", "x > 0"), ("the list", "list[int]", "rolls", "min(x) > 0"), ("the highest", "int", "max(rolls)", "x > 0")))])  # fmt: skip
add("classic/pattern", "function", "returns a <<shape>> of n rows made of <<c>> as a string", '''
def <<id>>(n: int) -> str:
    """Return a <<shape>> of n rows."""
    return "\\n".join(<<row>> for i in range(1, n + 1))
''', '''assert <<id>>(2) == "<<res>>"''', "key c id shape row res", [
    f"{s.split('|')[0]}/{c}|{c}|" + s.replace("%", c) for c, s in product("*#+@ox.=", (
        'triangle|triangle|"%" * i|%\\n%%', 'square|square|"%" * n|%%\\n%%', 'pyramid|pyramid|" " * (n - i) + "%" * (2 * i - 1)| %\\n%%%',
        'right_triangle|right-aligned triangle|" " * (n - i) + "%" * i| %\\n%%', 'upside_down_triangle|triangle with the point at the bottom|"%" * (n + 1 - i)|%%\\n%'))])  # fmt: skip


def fizzbuzz(rng: Random) -> Row:
    """Choose the divisors and words."""
    a, b = rng.choice([(2, 3), (3, 5), (3, 4), (2, 5), (2, 7), (3, 7), (4, 5), (5, 7)])
    x, y = rng.choice(
        [("Fizz", "Buzz"), ("Foo", "Bar"), ("Ping", "Pong"), ("Tick", "Tock"), ("Red", "Blue"), ("Hot", "Dog")]
    )
    return {"key": f"{a}{x}{b}{y}", "a": str(a), "b": str(b), "x": x, "y": y, "ab": str(a * b), "low": (x + y).lower()}


add(
    "classic/fizzbuzz",
    "function",
    "plays FizzBuzz up to n with <<x>> for multiples of <<a>> and <<y>> for multiples of <<b>>",
    '''
def <<low>>(n: int) -> list[str]:
    """Return the words or numbers from 1 to n."""
    result = []
    for i in range(1, n + 1):
        word = "<<x>>" * (i % <<a>> == 0) + "<<y>>" * (i % <<b>> == 0)
        result.append(word or str(i))
    return result
''',
    'x = <<low>>(<<ab>>)\nassert x[0] == "1" and x[-1] == "<<x>><<y>>"\nassert x[<<a>> - 1] == "<<x>>" and x[<<b>> - 1] == "<<y>>"',
    rows=fizzbuzz,
)
add("classic/unittest", "unit test", "a function <<f>> that <<what>>", '''
import unittest


def <<f>>(x: int) -> <<type>>:
    """Compute a value which <<what>>."""
    return <<expr>>


class <<N>>Test(unittest.TestCase):
    """Test the function <<f>>."""

    def test_values(self) -> None:
        """Compare with known results."""
        self.assertEqual(<<f>>(3), <<r3>>)
        self.assertEqual(<<f>>(0), <<r0>>)
'''.replace("Compute a value which <<what>>.", "Implement the function under test."), '<<N>>Test("test_values").debug()', "f what N type expr r3 r0", (
    "double|doubles a number|Double|int|2 * x|6|0", "square|squares a number|Square|int|x * x|9|0", "is_even|tests for even numbers|IsEven|bool|x % 2 == 0|False|True",
    "increment|adds one to a number|Increment|int|x + 1|4|1", "negate|negates a number|Negate|int|-x|-3|0", "cube|cubes a number|Cube|int|x**3|27|0",
    "is_positive|tests for positive numbers|IsPositive|bool|x > 0|True|False"))  # fmt: skip
add(
    "async/delay",
    "async function",
    "waits <<n>> seconds and then returns a value",
    '''
import asyncio


async def delayed(value: object) -> object:
    """Return the value after <<n>> seconds."""
    await asyncio.sleep(<<n>>)
    return value
''',
    "assert asyncio.iscoroutinefunction(delayed)",
    "n",
    ("1", "2", "3", "5", "10", "0.5"),
    outro="Run it with `asyncio.run`.",
)
add(
    "async/gather",
    "async function",
    "runs several coroutines at the same time and returns their results",
    '''
import asyncio
from collections.abc import Awaitable


async def run_all(coroutines: list[Awaitable]) -> list:
    """Wait for all coroutines and return their results in order."""
    return await asyncio.gather(*coroutines)
''',
    "assert asyncio.run(run_all([asyncio.sleep(0, 1), asyncio.sleep(0, 2)])) == [1, 2]",
)
PATTERNS = (
    r"emails|email addresses|[\w.+-]+@[\w-]+\.[\w.]*\w|a@b.org", r"hashtags|hashtags|#\w+|#fun", r"mentions|@ mentions|@\w+|@bob",
    r"numbers|whole numbers|\d+|42", r"decimals|decimal numbers|\d+\.\d+|3.14", r"dates|dates like 2024-01-31|\d{4}-\d{2}-\d{2}|2024-01-31",
    r"times|times like 12:30|\d{2}:\d{2}|12:30", r"phone_numbers|phone numbers like 555-1234|\d{3}-\d{4}|555-1234", r"urls|URLs|https?://\S+|https://a.org",
    r"hex_colors|hex colors like #ff0000|#[0-9a-fA-F]{6}|#ff0000", r"capitalized_words|capitalized words|\b[A-Z][a-z]+|Bob", r"prices|prices like $9.99|\$\d+\.\d{2}|$9.99",
)  # fmt: skip
REGEX = {
    "extract": ("extracts all <<noun>> from a text", "list[str]", "Return all <<noun>> in the text.", "re.findall(PATTERN, text)", '["<<ex>>"]'),
    "count": ("counts the <<noun>> in a text", "int", "Return how many <<noun>> the text has.", "len(re.findall(PATTERN, text))", "1"),
    "remove": ("removes all <<noun>> from a text", "str", "Return the text without <<noun>>.", 're.sub(PATTERN, "", text)', '"so  it"'),
    "hide": ("replaces all <<noun>> in a text by stars", "str", "Return the text with <<noun>> as three stars.", 're.sub(PATTERN, "***", text)', '"so *** it"'),
    "has": ("tells whether a text contains <<noun>>", "bool", "Return True when the text contains <<noun>>.", "re.search(PATTERN, text) is not None", "True"),
}  # fmt: skip


def regex(rng: Random) -> Row:
    """Choose a pattern and what to do with it."""
    name, noun, pattern, example = rng.choice(PATTERNS).split("|")
    verb = rng.choice(list(REGEX))
    row = {"key": f"{verb}/{name}", "id": f"{verb}_{name}", "noun": noun, "ex": example}
    what, row["type"], doc, expr, res = REGEX[verb]
    row["expr"] = expr.replace("PATTERN", f'r"{pattern}"')
    return row | {"what": fill(what, row), "doc": fill(doc, row), "res": fill(res, row)}


add(
    "regex/text",
    "function",
    "<<what>>",
    '''
import re


def <<id>>(text: str) -> <<type>>:
    """<<doc>>"""
    return <<expr>>
''',
    'assert <<id>>("so <<ex>> it") == <<res>>',
    rows=regex,
)
