"""What is processed of prompts that begin like earlier ones, against what must be: the table of docs/server.md.

    python studies/prompts/prefix_reuse.py [--families qwen3 qwen3_5 gpt_oss "gemma4, shared keys"] [--answer 24]

Tiny random models answer requests through the server's sessions, one conversation after the other.  A prompt's tokens are
*shared* as far as it begins like what some cache holds, *needed* are the others, and *processed* those that were.  The
template takes reasoning out of earlier turns (tests/talks.py), so a next turn departs before the last answer.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from mlx_ddtree.generation.session import Session
from mlx_ddtree.generation.stored.folder import StoredFolder
from mlx_ddtree.generation.stored.prefixes import StoredPrefixes
from mlx_ddtree.pair import Pair
from mlx_ddtree.server.sessions import Sessions
from mlx_ddtree.terminal import table_text

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from tests.talks import Talk, answer, talking_pair, tool, user  # noqa: E402

FAMILIES = ("qwen3", "qwen3_5", "gpt_oss", "gemma4, shared keys")
QUESTION = "Which file holds the greeting and who calls it. " * 2
RESULT = "greet.py defines greet. main.py calls it. " * 3


class Server:
    """A server's sessions for one model, what a folder keeps of them, and the figures of the requests to them."""

    def __init__(self, pair: Pair, tokens: int, folder: Path) -> None:
        self.pair = pair
        self.folder = folder
        self.sessions = self.begun()
        self.processed: list[Session] = []
        self.tokens = tokens
        self.figures: list[tuple[int, int, int]] = []

    def begun(self) -> Sessions:
        """The sessions of a server that has just been started."""
        return Sessions(self.pair, 10, 2**30, StoredPrefixes(self.pair, StoredFolder(self.folder, 2**30)))

    def restart(self) -> None:
        """End the server, and start another one with the same folder."""
        self.processed = list(self.sessions)
        self.sessions.close()
        self.sessions = self.begun()

    def ask(self, ids: list[int]) -> list[int]:
        """An answer's tokens; notes the prompt's tokens, those that no cache holds, and those that were processed."""
        shared = max((session.shared(ids) for session in (*self.sessions, *self.processed)), default=0)
        session = self.sessions.take(ids)
        responses = session.stream(ids, self.tokens, tree_budget=4, parity="off")
        said = [token for response in responses for token in response.tokens]
        self.sessions.trim()
        self.figures.append((len(ids), len(ids) - shared, len(ids) - session.reused))
        return said


def next_turn(server: Server, **template: bool) -> None:
    """A user's second message; the first answer stands in it without its reasoning."""
    talk = Talk(server.pair, template=template)
    said = talk.text(server.ask(talk.ids(user(QUESTION))))
    server.ask(talk.ids(answer("It is in greet.py.", said), user("And who calls main.py.")))


def next_turn_without_thinking(server: Server) -> None:
    next_turn(server, enable_thinking=False)


def tool_loop(server: Server) -> None:
    """A tool's result; the client sends the reasoning back, as the template wants it within a turn."""
    talk = Talk(server.pair)
    said = talk.text(server.ask(talk.ids(user(QUESTION))))
    server.ask(talk.ids(answer("I look.", said), tool(RESULT)))


def tool_loop_without_reasoning(server: Server) -> None:
    """A tool's result; the client does not send the reasoning back."""
    talk = Talk(server.pair)
    server.ask(talk.ids(user(QUESTION)))
    server.ask(talk.ids(answer("I look."), tool(RESULT)))


def turn_after_tools(server: Server) -> None:
    """A user's second message behind three tool calls, whose reasoning goes with it."""
    talk = Talk(server.pair)
    said = talk.text(server.ask(talk.ids(user(QUESTION))))
    for _ in range(3):
        said = talk.text(server.ask(talk.ids(answer("I look.", said), tool(RESULT))))
    server.ask(talk.ids(answer("It is in greet.py.", said), user("And who calls main.py.")))


def second_conversation(server: Server) -> None:
    """Another user's question behind the same system prompt."""
    server.ask(Talk(server.pair).ids(user(QUESTION)))
    server.ask(Talk(server.pair).ids(user("Rename greet to hello.")))


def once_more(server: Server) -> None:
    """The last answer made anew."""
    ids = Talk(server.pair).ids(user(QUESTION))
    server.ask(ids)
    server.ask(ids)


def restart(server: Server) -> None:
    """A user's second message after the server was ended and started again, with --prompt-cache-dir."""
    talk = Talk(server.pair)
    said = talk.text(server.ask(talk.ids(user(QUESTION))))
    server.restart()
    server.ask(talk.ids(answer("It is in greet.py.", said), user("And who calls main.py.")))


CASES: dict[str, Callable[[Server], None]] = {
    "next turn": next_turn,
    "next turn, no thinking": next_turn_without_thinking,
    "tool loop": tool_loop,
    "tool loop, no reasoning sent": tool_loop_without_reasoning,
    "turn after three tools": turn_after_tools,
    "second conversation": second_conversation,
    "the same again": once_more,
    "restart": restart,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=FAMILIES, help="of tests/families.py")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--answer", type=int, default=24, help="tokens of every answer")
    args = parser.parse_args()
    pairs = {family: talking_pair(family) for family in args.families}
    rows = []
    for case in args.cases:
        for family, pair in pairs.items():
            with TemporaryDirectory() as folder:
                server = Server(pair, args.answer, Path(folder))
                CASES[case](server)
                server.sessions.close()
            prompt, needed, processed = server.figures[-1]
            figures = {"prompt": prompt, "needed": needed, "processed": processed, "twice": processed - needed}
            rows.append({"the last request": case, "target": family, **figures})
    print(table_text(rows))


if __name__ == "__main__":
    main()
