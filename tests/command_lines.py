"""The command lines of README and docs, as a reader would type them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "mlx_ddtree/demo/README.md"])
PROGRAMS = ("benchmark", "chat", "convert", "doctor", "generate", "models", "server", "train")
OPERATORS = ("&&", "||", ";", "|")


@dataclass(frozen=True)
class Line:
    """One command.

    page: where it stands.
    words: what the shell makes of it, without redirections; stdin: the file that it reads, or None.
    """

    page: str
    words: tuple[str, ...]
    stdin: str | None = None

    @property
    def text(self):
        return shlex.join(self.words)

    @property
    def program(self):
        """The program of this package that is called, and its arguments; None where it is another one.

        `mlx.launch ... -- program` and `caffeinate -i program` start one too.
        """
        words = list(self.words)
        if words[0] == "mlx.launch" and "--" in words:
            words = words[words.index("--") + 1 :]
        if words[:2] == ["caffeinate", "-i"]:
            words = words[2:]
        name, *arguments = words
        found = re.fullmatch(r"(?:\S*/)?mlx_ddtree\.(\w+)", name)
        if found and found[1] in PROGRAMS:
            return found[1], arguments
        if re.fullmatch(r"(?:\S*/)?mlx_ddtree", name) and arguments[:1] and arguments[0] in PROGRAMS:
            return arguments[0], arguments[1:]
        if words[:2] == ["python", "-m"] and words[2].startswith("mlx_ddtree"):
            return Line(self.page, tuple(words[2:])).program
        return None


def command_lines():
    """All of them, every one once: of shell blocks, behind `$ ` in transcripts, and in the text between backquotes."""
    found = {}
    for page in PAGES:
        for text in texts_of(page.read_text(encoding="utf-8")):
            for line in commands_of(str(page.relative_to(ROOT)), text):
                found.setdefault((line.words, line.stdin), line)
    return list(found.values())


def texts_of(page):
    """The command lines that stand on a page, several commands each."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", page, re.S | re.M):
        if language in ("sh", "bash"):
            whole = re.sub(r"<<'(\w+)'.*?^\1$", "", block, flags=re.S | re.M)
            yield from re.sub(r"\\\n", " ", whole).splitlines()
        else:
            yield from re.findall(r"^\$ (.*)", block, re.M)
    between = re.sub(r"^```.*?^```", "", page, flags=re.S | re.M)
    for code in re.findall(r"`([^`]+)`", between):
        words = tuple(code.split())
        started = len(words) > 1 and Line("", words).program is not None  # a name alone is no command line
        if started or code.startswith(("python studies/", "pytest ", "pip install ", "bash ", "mlx.launch -")):
            yield " ".join(code.split())


def commands_of(page, text):
    """The commands of one line, comments and redirections left out."""
    text = re.sub(r"\$\([^)]*\)", "$SOMETHING", re.sub(r"(?:^|;)\s*do\b", ";", text))
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";&|<>")
    lexer.whitespace_split = True
    lexer.commenters = "#" if re.search(r"(?:^|\s)#", text) else ""
    words, stdin, tokens = [], None, iter([*lexer, ";"])
    for token in tokens:
        if token in OPERATORS:
            if words:
                yield Line(page, tuple(words), stdin)
            words, stdin = [], None
        elif token == "<":
            stdin = next(tokens)
        elif token == ">":
            next(tokens)
        else:
            words.append(token)
