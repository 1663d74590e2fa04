"""Write docs/api.md: every public name, from its docstring, by griffe2md.

Usage: python studies/code/api_page.py [--check] [--output docs/api.md]

--check writes nothing and says what is missing or old.
"""

import argparse
import re
import sys
from pathlib import Path

import griffe
import griffe2md

import mlx_ddtree
from mlx_ddtree.generation.options import DEFAULTS, FLAGS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "api.md"
HEAD = """\
# The public names

What `from mlx_ddtree import ...` offers; everything else may change without notice. `studies/code/api_page.py` writes this page from
the docstrings, and a test compares them.
"""
GROUPS = {
    "Loading": ["load", "sharded_load", "Pair"],
    "Answering": [
        *("generate", "stream_generate", "GenerationResponse", "stream_branches", "Session", "make_prompt_cache"),
        "asynchronous",
    ],
    "How to answer": ["GenerationOptions", "make_sampler", "Grammar"],
    "Looking": ["watch", "Answer", "draw_tree"],
    "Measuring": ["compare", "Comparison", "benchmark", "BenchmarkResult"],
    "What can go wrong": [
        *("MlxDdtreeError", "ConfigError", "MissingExtraError", "OptionError", "PairError", "PromptError"),
        *("RankError", "UnsupportedModelError", "WeightsError"),
    ],
    "The version": ["__version__"],
}
HOW = {
    "docstring_style": None,
    "heading_level": 3,
    "show_root_full_path": False,
    "show_root_members_full_path": False,
    "show_object_full_path": False,
    "show_signature_annotations": True,
    "show_if_no_docstring": False,
    "filters": ["!^_"],
    "summary": False,
    "line_length": 100,
}
"""Options of griffe2md.  Docstrings are this project's own style, of which `as_markdown` makes lists."""


def as_markdown(docstring):
    """A docstring with its lines `name: what it is`, and what is indented below them, as a list."""
    first, *rest = docstring.splitlines()
    lines = [first]
    for line in rest:
        item = re.match(r"((?:\w+, (?:or )?)*\w+): (.*)", line)
        if item:
            names = re.sub(r"(?!or )\b\w+", r"`\g<0>`", item[1])
            if lines and lines[-1] and not lines[-1].startswith(("* ", "  ")):
                lines.append("")
            lines.append(f"* {names}: {item[2]}")
        elif line.startswith("    ") and lines and lines[-1].startswith(("* ", "  ")):
            lines.append(f"  {line.strip()}")
        else:
            lines.append(line)
    return "\n".join(lines)


def prepare(thing):
    """Docstrings as Markdown, of a class's public members too; members without one are left out."""
    if thing.docstring is not None:
        thing.docstring.value = as_markdown(thing.docstring.value)
    for name, member in list(thing.members.items()):
        if name.startswith("_") or member.is_alias or member.docstring is None:
            thing.del_member(name)
        else:
            prepare(member)


def entry(public, name):
    """A name's heading, signature and docstring."""
    if name == "__version__":
        return f"### {name}\n\nOf this package, as text."
    thing = public[name]
    thing = thing.final_target if thing.is_alias else thing
    prepare(thing)
    text = griffe2md.render_object_docs(thing, HOW)
    text = re.sub(r"^(#+) .*?`?(?:\w+\.)*(\w+)`?$", r"\1 \2", text, flags=re.M).strip()
    text = re.sub(r"^#### ", f"#### {name}.", text, flags=re.M)
    text = re.sub(r"(?<=```python\n).{101,}(?=\n```)", lambda match: broken(match[0]), text)
    if name == "GenerationOptions":
        text = text.replace("\n\n####", f"\n\n{options_table()}\n\n####", 1)
    return text


def broken(signature):
    """A long signature with a line for every parameter."""
    start, end = signature.index("(") + 1, signature.rindex(")")
    depth, lines, line = 0, [], ""
    for character in signature[start:end]:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            lines.append(f"    {line.strip()},\n")
            line = ""
        else:
            line += character
    return f"{signature[:start]}\n{''.join(lines)}    {line.strip()},\n{signature[end:]}"


def options_table():
    """The options that the command line has too, in the words of --help."""
    rows = ["| option | default | what |", "| --- | --- | --- |"]
    for name, flag in FLAGS.items():
        about = " ".join(str(flag.help).replace("|", "\\|").split())
        rows.append(f"| `{name}` | `{DEFAULTS[name]!r}` | {about} |")
    return "\n".join(rows)


def page():
    """The whole text."""
    package = griffe.load("mlx_ddtree", search_paths=[str(ROOT)], resolve_aliases=True)
    public = package["_public"]
    parts = [HEAD.strip()]
    for title, names in GROUPS.items():
        parts.append(f"## {title}")
        parts += [entry(public, name) for name in names]
    return "\n\n".join(parts) + "\n"


def problems():
    """What is wrong with the page as it is; empty if nothing."""
    grouped = {name for names in GROUPS.values() for name in names}
    public = set(mlx_ddtree.__all__)
    found = [f"{name} is public and in no group of this program" for name in sorted(public - grouped)]
    found += [f"{name} is in a group of this program and not public" for name in sorted(grouped - public)]
    if not found and PAGE.read_text(encoding="utf-8").split() != page().split():
        found.append("docs/api.md is old: run python studies/code/api_page.py")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    parser.add_argument("--output", type=Path, default=PAGE)
    args = parser.parse_args()
    if args.check:
        found = problems()
        print("\n".join(found) or f"{len(mlx_ddtree.__all__)} public names, each on the page")
        if found:
            sys.exit(1)
        return
    args.output.write_text(page(), encoding="utf-8")
    print(args.output)


if __name__ == "__main__":
    main()
