"""What the ranks of these tests run: `python -m tests.distributed.programs NAME ARGUMENTS...`."""

import json
import os
import signal
import socket
import sys
from contextlib import suppress
from threading import Timer
from time import sleep

import mlx_ddtree
from mlx_ddtree import make_sampler, stream_generate
from mlx_ddtree.errors import RankError
from mlx_ddtree.tuning import measure, stopwatch

PROMPT = "Write a function that merges two sorted lists."


def answers(length, parity, pipeline, *folders):
    """Every way of decoding on every pair, and what it exchanged; one JSON line for each."""
    for folder in folders:
        pair = mlx_ddtree.load(*pair_of(folder), pipeline=pipeline == "pipeline")
        for result in decode_all(pair, int(length), parity):
            print(json.dumps({"folder": folder} | result))


def decode_all(pair, length, parity):
    pair.tokenizer.eos_token_ids.clear()
    ids = pair.tokenizer.encode(PROMPT)
    for temp in (0, 0.7):
        for method, budget in (("ar", 0), ("dflash", None), ("ddtree", 11)):
            sampler, last, tokens = make_sampler(temp, seed=5), None, []
            size = {"block_size": 5} if budget is None else {"tree_budget": budget}
            how = {"method": method, "sampler": sampler, "parity": parity, **size}
            for last in stream_generate(pair, ids, length, **how):
                tokens += last.tokens
            exchange = last.statistics.exchange
            yield {
                "how": [temp, method],
                "tokens": tokens,
                "exchange": exchange and exchange.as_dict(),
            }
    session, tokens = mlx_ddtree.Session(pair), []
    for prompt in (ids, [*ids[:30], 5, 6, 7], [*ids[:29], 8, 9]):  # the second departs, the third goes on from there
        tokens.append(session.reused)
        for last in session.stream(prompt, length, tree_budget=4, parity=parity, prefill_step_size=8):
            tokens += last.tokens
    tokens.append(session.reused)
    yield {"how": ["session"], "tokens": tokens, "exchange": exchange and exchange.as_dict()}


def forever():
    """Say every token that comes, as long as the context is."""
    pair = mlx_ddtree.load()
    pair.tokenizer.eos_token_ids.clear()
    try:
        for response in stream_generate(pair, PROMPT, -1, tree_budget=8):
            print(f"token {response.generation_tokens}" if response.generation_tokens % 20 else "token 20")
    except KeyboardInterrupt:
        sys.exit(130)


def idle():
    mlx_ddtree.load(draft=False)
    print("idle")
    sleep(60)


def fail():
    """Rank 1 is told to take something that it does not have."""
    pair = mlx_ddtree.load(draft=False)
    pair.target.leader.send("taps", 7, [])
    sleep(60)


def interrupted():
    """Ctrl-C at different moments of a text; whether the same session then says all of it."""
    pair = mlx_ddtree.load()
    pair.tokenizer.eos_token_ids.clear()
    ids = pair.tokenizer.encode(PROMPT)
    want = said(stream_generate(pair, ids, 40, tree_budget=8))
    session = mlx_ddtree.Session(pair)
    for seconds in (0.03, 0.1, 0.25):
        Timer(seconds, signal.raise_signal, [signal.SIGINT]).start()
        with suppress(KeyboardInterrupt):
            said(session.stream(ids, 1000, tree_budget=8))
        assert said(session.stream(ids, 40, tree_budget=8)) == want
        print(json.dumps(said(session.fork(ids).stream(ids, 40, tree_budget=8)) == want))


def missing(folder):
    """A target that lies on rank 0's machine only."""
    if os.environ["MLX_RANK"] == "0":
        os.chdir(folder)
    try:
        mlx_ddtree.load("./target", draft=False)
    except RankError as error:
        print(json.dumps(str(error)))


def traffic():
    """What is counted as exchanged, and what this process's sockets have sent meanwhile."""
    pair = mlx_ddtree.load()
    pair.tokenizer.eos_token_ids.clear()
    for method, size in (("ar", {}), ("ddtree", {"tree_budget": 11})):
        list(stream_generate(pair, PROMPT, 4, method=method, parity="off", **size))  # all is loaded and connected
        before = sent_bytes()
        *_, last = stream_generate(pair, PROMPT, 30, method=method, parity="off", **size)
        print(json.dumps(last.statistics.exchange.as_dict() | {"sent": sent_bytes() - before}))


def sent_bytes():
    """By all TCP sockets of this process, as Linux counts them (tcp_info.tcpi_bytes_acked)."""
    total = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError), socket.socket(fileno=os.dup(int(name))) as same:
            info = same.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128)
            total += int.from_bytes(info[120:128], sys.byteorder)
    return total


def memory(*folders):
    """Bytes of weights on every rank, and the most there were while they loaded."""
    for folder in folders:
        pair = mlx_ddtree.load(folder, draft=False)
        print(json.dumps(pair.notes["memory_bytes"]))


def said(responses):
    return [token for response in responses for token in response.tokens]


def pair_of(folder):
    return (None, None) if folder == "embedded" else (f"{folder}/target", f"{folder}/drafter")


if __name__ == "__main__":
    stopwatch.WARM_UPS = stopwatch.LEAST = stopwatch.MOST = measure.SECOND_LOOKS = 1  # as tests/conftest.py has it
    measure.ROWS = (1, 2, 4, 8, 16, 32)
    globals()[sys.argv[1]](*sys.argv[2:])
