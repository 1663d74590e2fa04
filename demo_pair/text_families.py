"""Families of small tasks on strings."""

import re
import string
from collections.abc import Callable
from random import Random

from spec import DATA, Spec, literal, plural
from task import read_rows

LETTERS = "abcdefghijklmnopqrstuvwxyz"
# Characters of a kind: slug -> (noun, condition on char, its import).
CHARS: dict[str, tuple[str, str, str]] = {
    row["slug"]: (row["noun"], row["condition"], "import string" if "string." in row["condition"] else "")
    for row in read_rows(DATA["tables"]["characters"])
}
CHARS |= {f"{letter}s": (f'letters "{letter}"', f'char == "{letter}"', "") for letter in LETTERS}
CASES = {row["slug"]: (row["name"], row["expression"], row["example"]) for row in read_rows(DATA["tables"]["cases"])}
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
    hits = [i for i, char in enumerate(sample) if eval(condition, {"char": char, "string": string})]
    chosen = [sample[i] for i in hits]
    result = {
        "count": len(hits), "remove": "".join(c for i, c in enumerate(sample) if i not in hits), "keep": "".join(chosen),
        "has": bool(hits), "only": len(hits) == len(sample), "list": chosen, "positions_of": hits,
        "mask": "".join("*" if i in hits else c for i, c in enumerate(sample)),
        "double": "".join(c * 2 if i in hits else c for i, c in enumerate(sample)), "distinct": len(set(chosen)),
        "share_of": round(len(hits) / len(sample), 9), "first_of": hits[0] if hits else -1,
    }[op]  # fmt: skip
    return f"{op}/{slug}", Spec(f"{op}_{slug}", "text: str", returns, phrase.replace("N", noun), body,
                                ((literal(sample), literal(result)),), before)  # fmt: skip


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
                                body.replace("IF", test), ((literal(sample), literal(reference(found))),))  # fmt: skip


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
        f"{a}_and_{b}", "text: str", "str", phrase, f"return {expression}", (('" My Dog "', literal(result)),)
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
            (('["a", "b", "c"]', literal(JOINED[a].join("abc"))),),
        )
    if op == "split":
        body = f'return [part.strip() for part in text.split("{x}")]'
        return f"split/{a}", Spec(
            f"split_at_{slug}",
            "text: str",
            "list[str]",
            f"split a string at {a} and trim^ the parts",
            body,
            ((literal(f"red{x}green"), '["red", "green"]'),),
        )
    if op == "count":
        return f"count/{a}", Spec(
            f"count_{slug}",
            "text: str",
            "int",
            f"count the {a} in a string",
            f'return text.count("{x}")',
            ((literal(f"a{x}b{x}c"), "2"),),
        )
    return f"replace/{a}/{b}", Spec(f"{slug}_to_{other}", "text: str", "str", f"replace {a} with {b} in a string",
                                    f'return text.replace("{x}", "{y}")', ((literal(f"a{x}b"), literal(f"a{y}b")),))  # fmt: skip


def letter_case(rng: Random) -> tuple[str, Spec]:
    a, b = rng.sample(list(CASES), 2)
    split = {"snake": 'name.lower().split("_")', "constant": 'name.lower().split("_")', "kebab": 'name.lower().split("-")',
             "title": "name.lower().split()"}.get(a, 're.sub(r"(?<!^)([A-Z])", r" \\1", name).lower().split()')  # fmt: skip
    split = split.replace("\\\\", "\\")
    return f"{a}/{b}", Spec(f"{a}_to_{b}", "name: str", "str", f"convert {CASES[a][0]} to {CASES[b][0]}",
                            f"words = {split}\nreturn {CASES[b][1]}", ((literal(CASES[a][2]), literal(CASES[b][2])),),
                            "import re" if "re.sub" in split else "")  # fmt: skip


def padding(rng: Random) -> tuple[str, Spec]:
    fill, noun = rng.choice((("0", "zeros"), ("*", "asterisks"), ("-", "hyphens"), (".", "dots"), ("#", "hash signs")))
    side, method = rng.choice((("left", "rjust"), ("right", "ljust"), ("both", "center")))
    k = rng.choice((5, 6, 8, 10, 12, 20))
    where = "on both sides" if side == "both" else f"on the {side}"
    result = getattr("cat", method)(k, fill)
    return f"{side}/{noun}/{k}", Spec(f"pad_{side}", "text: str", "str", f"pad a string with {noun} {where} to {k} characters",
                                      f'return text.{method}({k}, "{fill}")', (('"cat"', literal(result)),))  # fmt: skip


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
    return f"{op}/{k}", Spec(
        name, "text: str", "str", phrase, f"return text{piece}", ((literal(text), literal(result)),)
    )


def caesar(rng: Random) -> tuple[str, Spec]:
    k, way = rng.randint(1, 13), rng.choice(("forward", "back"))
    sign = "+" if way == "forward" else "-"
    body = ('result = ""\nfor char in text:\n    if char.isalpha():\n        base = ord("A") if char.isupper() else ord("a")\n'
            f"        char = chr((ord(char) - base {sign} {k}) % 26 + base)\n    result += char\nreturn result")  # fmt: skip
    shifted = LETTERS[(k if sign == "+" else -k) % 26]
    return f"{way}/{k}", Spec(f"shift_{way}_{k}", "text: str", "str", f"shift the letters of a string {way} by {k}", body,
                              (('"a!"', literal(shifted + "!")),))  # fmt: skip


def validate_length(rng: Random) -> tuple[str, Spec]:
    k = rng.randint(4, 16)
    need, test = rng.choice((("a digit", "isdigit"), ("an uppercase letter", "isupper"), ("a lowercase letter", "islower"),
                             ("a letter", "isalpha")))  # fmt: skip
    body = f"return len(password) >= {k} and any(char.{test}() for char in password)"
    good = {"isdigit": "1", "isupper": "A"}.get(test, "a") * k
    return f"{test}/{k}", Spec("is_valid_password", "password: str", "bool",
                               f"check that a password has at least {k} characters and {need}", body,
                               ((literal(good), "True"), ('"?"', "False")))  # fmt: skip
