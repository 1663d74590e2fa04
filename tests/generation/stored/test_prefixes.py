"""What a folder keeps is believed as if it had been processed just now, and nothing else is believed."""

from functools import cache

import numpy as np
import pytest

from mlx_ddtree import Session, load
from mlx_ddtree.errors import OptionError
from mlx_ddtree.generation.stored.folder import StoredFolder
from mlx_ddtree.generation.stored.index import BLOCK, PLACE, ROWS, Piece, PieceIndex, digest_of
from mlx_ddtree.generation.stored.prefixes import StoredPrefixes
from mlx_ddtree.server.sessions import Sessions

from ...helpers import small_pair
from ...talks import Talk, answer, talking_pair, user

pair_of = cache(talking_pair)
FAMILIES = ["qwen3", "qwen3_5", "gpt_oss", "gemma4, shared keys"]
QUESTION = user("Which file holds the greeting and who calls it.")
OPTIONS = {"tree_budget": 0, "parity": "off"}


class Process:
    """What one process does with a folder."""

    def __init__(self, pair, path, most_bytes=2**30):
        self.stored = StoredPrefixes(pair, StoredFolder(path, most_bytes))
        self.sessions = Sessions(pair, 10, 2**30, self.stored)

    def ask(self, ids, n=6, **options):
        """The responses to a prompt, and the session that gave them."""
        session = self.sessions.take(ids)
        responses = list(session.stream(ids, n, **OPTIONS | options))
        self.sessions.trim()
        return responses, session

    def end(self):
        self.sessions.save_while(lambda: True)  # however long it takes
        self.sessions.close()


def tokens_of(responses):
    return [token for response in responses for token in response.tokens]


def turns_of(pair):
    talk = Talk(pair)
    return talk.ids(QUESTION), talk.ids(answer("It is in greet.py."), user("And who calls main.py."))


def asked_once(pair, path, *prompts, **options):
    """A process that has answered these prompts and ended."""
    process = Process(pair, path, **options)
    for ids in prompts:
        process.ask(ids)
    process.end()


@pytest.mark.parametrize("family", FAMILIES)
def test_after_a_restart_every_number_is_that_of_a_session_that_went_on(family, tmp_path):
    """... and no more of the prompt is processed.  Bit for bit, the drafter's rows among them."""
    pair = pair_of(family)
    first, second = turns_of(pair)
    asked_once(pair, tmp_path, first)
    going_on = Session(pair, remembers=False)
    list(going_on.stream(first, 6, **OPTIONS))
    want = list(going_on.stream(second, 6, **OPTIONS))
    process = Process(pair, tmp_path)
    got, session = process.ask(second)
    process.end()
    assert session.found_in == "disk"
    assert session.reused == going_on.reused > 350
    assert tokens_of(got) == tokens_of(want)
    assert all(np.array_equal(a.logprobs, b.logprobs) for a, b in zip(got, want, strict=True))
    for mine, other in zip(session.cache.drafter, going_on.cache.drafter, strict=True):
        assert mine.offset == other.offset
        assert np.array_equal(mine.keys[..., : mine.offset, :], other.keys[..., : mine.offset, :])


@pytest.mark.parametrize("family", ["qwen3", "qwen3_5"])
def test_another_conversation_shares_the_system_prompt(family, tmp_path):
    pair = pair_of(family)
    asked_once(pair, tmp_path, Talk(pair).ids(QUESTION))
    process = Process(pair, tmp_path)
    ids = Talk(pair).ids(user("Rename greet to hello."))
    got, session = process.ask(ids)
    process.end()
    assert len(ids) - session.reused < 60
    assert tokens_of(got) == tokens_of(Session(pair).stream(ids, 6, method="ar"))


@pytest.mark.parametrize("family", ["qwen3", "qwen3_5"])
def test_a_conversation_that_grows_is_written_once(family, tmp_path):
    """What a second turn adds comes to the files; whole blocks of the first one stay as they are."""
    pair, first = pair_of(family), turns_of(pair_of(family))[0]
    process = Process(pair, tmp_path)
    second = [*first, *tokens_of(process.ask(first)[0]), *first[:20]]
    process.end()
    before = {path.name: path.stat().st_ino for path in tmp_path.glob("*.rows.safetensors")}
    asked_once(pair, tmp_path, second)
    after = {path.name: path.stat().st_ino for path in tmp_path.glob("*.rows.safetensors")}
    assert len(before) == len(after) == 2
    assert len(set(before.items()) & set(after.items())) == 1
    process = Process(pair, tmp_path)
    assert process.ask(second)[1].reused == len(second) - 1
    process.end()


def test_a_drafter_with_a_window_has_its_rows_again(tmp_path):
    pair = load(draft_window=32)
    ids = pair.tokenizer.encode("def add(a, b):\n    return a + b\n" * 40)
    process = Process(pair, tmp_path)
    _, before = process.ask(ids, 8)
    process.end()
    process = Process(pair, tmp_path)
    _, session = process.ask([*ids, *ids[:9]], 1)
    process.end()
    assert session.found_in == "disk"
    for mine, other in zip(session.cache.drafter, before.cache.drafter, strict=True):
        assert mine.stored >= 32
        both = min(mine.stored, other.stored) - 20
        assert mine.first <= len(ids) - both
        rows = [c.keys[..., len(ids) - both - c.first : len(ids) - c.first, :] for c in (mine, other)]
        assert np.array_equal(*rows)


@pytest.mark.parametrize("kind", ["rows", "place"])
def test_a_damaged_file_is_processed_again(kind, tmp_path):
    pair = pair_of("qwen3_5")
    first, second = turns_of(pair)
    asked_once(pair, tmp_path, first)
    for path in tmp_path.glob(f"*.{kind}.safetensors"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    process = Process(pair, tmp_path)
    got, session = process.ask(second)
    process.end()
    assert session.reused == 0
    assert tokens_of(got) == tokens_of(Session(pair).stream(second, 6, method="ar"))


def test_another_model_believes_nothing_of_it(tmp_path):
    ids = [5, *range(4, 60)] * 3
    asked_once(small_pair(), tmp_path, ids)
    process = Process(small_pair(seed=1), tmp_path)
    assert process.ask(ids)[1].found_in == "none"
    process.end()


def test_the_bound_holds(tmp_path):
    pair = pair_of("qwen3_5")
    most = 300_000
    for place in range(4):
        asked_once(pair, tmp_path, Talk(pair).ids(user(f"{place} is the question.")), most_bytes=most)
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= most
    assert list(tmp_path.glob("*.safetensors"))


def test_files_are_read_only_where_they_save_much(tmp_path):
    pair = small_pair()
    ids = list(range(4, 44))
    asked_once(pair, tmp_path, ids)
    process = Process(pair, tmp_path)
    assert process.ask(ids)[1].found_in == "none"
    process.end()


def test_a_compressed_prompt_is_not_stored(tmp_path):
    pair = load()
    process = Process(pair, tmp_path)
    process.ask(
        pair.tokenizer.encode("def add(a, b):\n    return a + b\n" * 90),
        1,
        prefill_compression="always",
        prefill_scorer="lexical",
    )
    process.end()
    assert not list(tmp_path.glob("*.safetensors"))


def test_caches_of_unknown_kinds_are_refused_by_name(tmp_path, monkeypatch):
    pair = small_pair()

    class Unknown:
        pass

    monkeypatch.setattr(pair.target, "make_cache", lambda: [Unknown()])
    folder = StoredFolder(tmp_path, 2**20)
    with pytest.raises(OptionError, match="Unknown"):
        StoredPrefixes(pair, folder)
    folder.close()


def test_the_index_finds_the_longest_beginning():
    index, ids = PieceIndex(b"root", True, True), list(range(3 * BLOCK))
    second = digest_of(b"root", ids[:BLOCK])
    for piece in (
        Piece(ROWS, b"root", 0, tuple(ids[:BLOCK])),
        Piece(PLACE, b"root", 0, tuple(ids[:100])),
        Piece(ROWS, second, BLOCK, tuple(ids[BLOCK : BLOCK + 50])),
        Piece(PLACE, second, BLOCK, ()),
        Piece(PLACE, second, BLOCK, tuple(ids[BLOCK : BLOCK + 40])),
        Piece(PLACE, second, BLOCK, tuple(ids[BLOCK : BLOCK + 60])),  # the rows do not reach so far
    ):
        index.add(piece)
    found = {at: index.longest(ids[:at]) for at in (101, 100, BLOCK + 1, BLOCK + 40, BLOCK + 41, 3 * BLOCK)}
    lengths = {at: None if beginning is None else beginning.tokens for at, beginning in found.items()}
    assert lengths == {
        101: 100,
        100: None,
        BLOCK + 1: BLOCK,
        BLOCK + 40: BLOCK,
        BLOCK + 41: BLOCK + 40,
        768: BLOCK + 40,
    }
    assert [len(found[at].rows) for at in (101, BLOCK + 1, 768)] == [1, 1, 2]
