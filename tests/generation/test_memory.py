"""What is remembered is what was answered, for whoever asked for it, in a file that damage and strangers cannot turn
into an error of any other kind."""

import stat

import pytest

from mlx_ddtree import Session, stream_generate
from mlx_ddtree.budget.memory import LEAD, Memory
from mlx_ddtree.budget.suffixes import END
from mlx_ddtree.errors import OptionError
from mlx_ddtree.generation.memory import FORMAT, FileMemory, identity_of, open_memory
from mlx_ddtree.server.sessions import Sessions

from ..decoding.test_lossless import PROMPT, our_tokens, without_end
from ..helpers import small_pair


@pytest.fixture
def pair():
    return without_end(small_pair())


def tokens_of(memory):
    return memory.index.token_ids()


def test_an_answer_is_remembered_behind_the_end_of_its_prompt(pair):
    memory = Memory()
    answer = our_tokens(pair, PROMPT, 20, method="ar", memory=memory)
    assert tokens_of(memory) == [*PROMPT[-LEAD:], *answer, END]


def test_an_answer_that_is_cut_off_is_remembered_as_far_as_it_came(pair):
    memory = Memory()
    stream = stream_generate(pair, PROMPT, 50, method="ar", memory=memory)
    said = [next(stream).tokens[0] for _ in range(10)]
    stream.close()
    remembered = tokens_of(memory)[LEAD:-1]
    assert remembered[: len(said)] == said and len(remembered) <= len(said) + 2


def test_nothing_is_remembered_that_nobody_asked_for(pair):
    our_tokens(pair, PROMPT, 20)
    assert pair.memories == {}


def test_a_file_keeps_answers_for_the_next_process(pair, tmp_path):
    file = tmp_path / "memory"
    answer = our_tokens(pair, PROMPT, 20, memory=str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    pair.memories.clear()  # as another process would begin
    again = open_memory(pair, str(file))
    assert tokens_of(again) == [*PROMPT[-LEAD:], *answer, END]
    assert again is open_memory(pair, str(file))


def test_two_processes_add_to_one_file(tmp_path):
    file = tmp_path / "memory"
    first, second = FileMemory(file, "m"), FileMemory(file, "m")
    first.remember([1], [2, 3, 4, 5])
    first.keep()
    second.remember([6], [7, 8, 9, 10])
    second.keep()
    assert tokens_of(FileMemory(file, "m")) == [1, 2, 3, 4, 5, END, 6, 7, 8, 9, 10, END]


def test_a_file_is_bounded(tmp_path):
    file = tmp_path / "memory"
    memory = FileMemory(file, "m", capacity=50)
    for start in range(0, 300, 10):
        memory.remember([], list(range(start, start + 10)))
        memory.keep()
    assert file.stat().st_size < 50 * 4 + 200
    assert tokens_of(FileMemory(file, "m", capacity=50))[-2] == 299


def written(path):
    memory = FileMemory(path, "m")
    memory.remember([1], list(range(100, 200)))
    memory.keep()
    return path.read_bytes()


@pytest.mark.parametrize("kept", [0, 1, len(FORMAT), 60, 150, -1])
def test_a_torn_file_is_refused_in_one_line(tmp_path, kept):
    file = tmp_path / "memory"
    content = written(file)
    file.write_bytes(content[:kept])
    with pytest.raises(OptionError) as refusal:
        FileMemory(file, "m")
    assert "\n" not in str(refusal.value) and "memory" in str(refusal.value)


@pytest.mark.parametrize("place", range(0, 500, 37))
def test_a_changed_byte_is_noticed(tmp_path, place):
    file = tmp_path / "memory"
    content = bytearray(written(file))
    content[place] ^= 0x55
    file.write_bytes(content)
    with pytest.raises(OptionError):
        FileMemory(file, "m")


@pytest.mark.parametrize("content", [b"hello\n", FORMAT + b"[" * 5000, FORMAT + b'{"sha256": 3}\n1234'])
def test_a_foreign_file_is_refused_and_stays_as_it_is(pair, tmp_path, content):
    file = tmp_path / "memory"
    file.write_bytes(content)
    with pytest.raises(OptionError):
        stream_generate(pair, PROMPT, 5, memory=str(file))
    assert file.read_bytes() == content


def test_another_models_file_is_refused(pair, tmp_path):
    file = tmp_path / "memory"
    our_tokens(pair, PROMPT, 8, memory=str(file))
    other = small_pair(seed=5)
    assert identity_of(other) != identity_of(pair)
    with pytest.raises(OptionError, match="another model"):
        stream_generate(other, PROMPT, 5, memory=str(file))


@pytest.mark.parametrize("name", [".", "missing/memory"])
def test_what_is_no_file_is_refused(pair, tmp_path, name):
    with pytest.raises(OptionError, match="no file"):
        stream_generate(pair, PROMPT, 5, memory=str(tmp_path / name))


def test_a_file_that_became_something_else_is_left_alone(tmp_path, caplog):
    """While a process answers: one line, and the answer is not lost for want of a file."""
    file = tmp_path / "memory"
    memory = FileMemory(file, "m")
    file.write_text("something else", encoding="utf-8")
    memory.remember([1], [2, 3, 4, 5])
    memory.keep()
    assert file.read_text(encoding="utf-8") == "something else"
    assert caplog.text.count("not kept") == 1


def test_a_session_drafts_from_its_own_answers_until_it_is_reset(pair):
    session = Session(pair)
    list(session.stream(PROMPT, 12))
    assert len(session.memory.index) > 12
    session.reset()
    assert len(session.memory.index) == 0


def test_a_servers_sessions_remember_nothing(pair):
    """One may serve another user next; what is shared is what `memory` asks for."""
    sessions = Sessions(pair, 4, 1 << 30)
    session = sessions.take(PROMPT)
    assert session.memory is None
    list(session.stream(PROMPT, 12))
    again = sessions.take(PROMPT)
    assert again.memory is None
    assert again.fork(PROMPT).memory is None
    assert pair.memories == {}


def test_a_process_can_be_asked_to_remember(pair):
    our_tokens(pair, PROMPT, 12, memory="process")
    assert len(open_memory(pair, "process").index) == LEAD + 13
