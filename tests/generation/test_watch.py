"""Answers that are looked at: the marked text is the answer's, and an interrupted cell leaves the session whole."""

import asyncio
import re
import signal
from html import unescape

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from mlx_ddtree import Answer, OptionError, Session, generate, load, make_prompt_cache, stream_generate, watch
from mlx_ddtree.generation.origins import OWN, Pieces

MESSAGES = [{"role": "user", "content": "Write a function that merges two sorted lists."}]
FOLLOWING = "Now write a function that reverses a list."


@pytest.fixture(scope="module")
def pair():
    return load()


def text_of(html):
    """The text that a marked answer shows."""
    return unescape(re.sub("<[^>]+>", "", re.search("<pre[^>]*>(.*)</pre>", html, re.S)[1]))


@pytest.mark.parametrize("options", [{}, {"stop": ["left ="]}, {"tree_budget": 8}, {"method": "ar"}, {"max_tokens": 1}])
def test_a_watched_answer_is_the_answer(pair, options, capsys):
    options = {"max_tokens": 48} | options
    answer = watch(stream_generate(pair, MESSAGES, **options))
    assert str(answer) == generate(pair, MESSAGES, **options) == capsys.readouterr().out.removesuffix("\n")
    assert text_of(answer._repr_html_()) == answer.text
    assert len(answer.tokens) == answer.last.generation_tokens and answer.statistics is answer.last.statistics


def test_every_token_has_its_origin(pair):
    """A round's accepted tokens were drafted, the one behind them is the model's own."""
    pieces = Pieces(pair.tokenizer)
    for response in stream_generate(pair, MESSAGES, 60, tree_budget=12):
        origins = [piece.origin for piece in pieces.of(response)]
        if len(origins) == len(response.tokens):  # every token ends a character
            assert origins == (["drafted"] * response.round.accepted + [OWN])[: len(origins)]  # the limit may cut


def test_its_trees(pair):
    answer = watch(stream_generate(pair, MESSAGES, 48, tree_budget=12))
    assert answer.tree(2).title.startswith("round 2: ")
    assert len(answer.tree().path) > 1
    assert "after it the model says" in answer.tree()._repr_mimebundle_()["image/svg+xml"]
    with pytest.raises(OptionError, match="there is no round 99"):
        answer.tree(99)
    with pytest.raises(OptionError, match="drafted anything"):
        watch(stream_generate(pair, MESSAGES, 4, method="ar")).tree()
    with pytest.raises(OptionError, match="no rounds"):
        _ = Answer().last


def test_what_a_cell_shows_of_a_response_and_of_statistics(pair):
    """A line, and the round's tree with the model's own probabilities; every round is in each of three tables."""
    *_, last = stream_generate(pair, MESSAGES, 30, tree_budget=8)
    bundle = last._repr_mimebundle_()
    assert bundle["text/plain"] == repr(last) and len(repr(last)) < 200 and "\n" not in repr(last)
    assert "the model&#x27;s probability" in bundle["image/svg+xml"]
    first = next(stream_generate(pair, MESSAGES, 1))
    assert first._repr_mimebundle_().keys() == {"text/plain"}

    tables = last.statistics._repr_html_().split("<caption")[1:]
    counts = [map(int, re.findall(r"(\d+)</td><td[^>]*>\d+%", table)) for table in tables]
    assert [sum(count) for count in counts] == [last.rounds] * 3
    assert repr(last.statistics) == f"RoundStatistics({last.rounds} rounds: draft={last.rounds})"


CELLS = {
    "watched": "watch(interrupted(session.stream(messages, 60, tree_budget=12)))",
    "looped": "for response in session.stream(messages, 60, tree_budget=12, prompt_progress_callback=None):\n"
    "    if response.rounds == 2:\n        interrupt()",
    "reading": "generate_all(session.stream(messages, 60, prompt_progress_callback=lambda done, total: interrupt()))",
}


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_after_an_interrupted_cell_the_session_goes_on(pair, cell, loop):
    """Whether the interrupt comes between rounds, while the prompt is read or beside a running loop: what the session
    holds is what it gave out, and the next answer is that of a session which never was interrupted."""

    def interrupt():
        signal.raise_signal(signal.SIGINT)

    def interrupted(stream):
        for response in stream:
            yield response
            if response.rounds == 2:
                interrupt()

    session = Session(pair)
    names = {"session": session, "messages": MESSAGES, "watch": watch, "interrupt": interrupt}
    shell = InteractiveShell(user_ns=names | {"interrupted": interrupted, "generate_all": list})
    with capture_output() as shown:
        ran = run_cell(shell, CELLS[cell], loop)
    assert isinstance(ran.error_in_exec, KeyboardInterrupt) or "KeyboardInterrupt" in shown.stdout + shown.stderr

    prompt = pair.tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True)
    whole = [*prompt, *watch(stream_generate(pair, MESSAGES, 60, tree_budget=12)).tokens]
    assert session.token_ids == whole[: len(session.token_ids)]
    assert (len(session.token_ids) > len(prompt)) == (cell != "reading")
    turns = [*MESSAGES, {"role": "assistant", "content": "Of course."}, {"role": "user", "content": FOLLOWING}]
    rest = "".join(response.text for response in session.stream(turns, 40, tree_budget=12))
    assert rest == generate(pair, turns, 40, tree_budget=12)


def test_after_an_interrupted_loop_the_prompt_cache_is_free(pair):
    """The loop's stream goes with the loop, though the notebook keeps the traceback."""
    cache = make_prompt_cache(pair)
    names = {"stream_generate": stream_generate, "pair": pair, "messages": MESSAGES, "cache": cache}
    shell = InteractiveShell(user_ns=names)
    cell = "for response in stream_generate(pair, messages, prompt_cache=cache):\n    raise KeyboardInterrupt"
    with capture_output():
        run_cell(shell, cell, False)
    assert "".join(r.text for r in stream_generate(pair, "\n", 4, prompt_cache=cache))


def run_cell(shell, cell, loop):
    """As a plain IPython runs a cell, or as a notebook does, under a loop that is running."""
    if not loop:
        return shell.run_cell(cell)
    running = asyncio.new_event_loop()  # asyncio.run would take the interrupt for itself
    try:
        return running.run_until_complete(shell.run_cell_async(cell, transformed_cell=cell))
    finally:
        running.close()
