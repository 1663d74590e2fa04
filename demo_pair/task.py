"""One synthetic training dialogue of the demo target, and the checks every one must pass."""

import ast
from collections.abc import Callable
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Task:
    """A request and its answer.

    key: what is asked, whatever the wording ("aggregate/sum/even"); a key is held out as a whole.
    prompt: the user's words.
    code: the Python source that answers it (no fences).
    intro, outro: a sentence before and after the code; may be empty.
    check: statements that raise when `code` is wrong; run after `code` in the same namespace.
    """

    key: str
    prompt: str
    code: str
    intro: str = ""
    outro: str = ""
    check: str = ""

    @property
    def answer(self) -> str:
        parts = [self.intro, f"```python\n{self.code.strip()}\n```", self.outro]
        return "\n\n".join(part for part in parts if part)

    def verify(self) -> None:
        """Raise if the code does not parse, does not run, or fails its check."""
        ast.parse(self.code)
        namespace: dict[str, object] = {"__name__": "task"}
        exec(compile(self.code, self.key, "exec"), namespace)
        exec(compile(self.check, self.key, "exec"), namespace)


Family = Callable[[Random], Task]
