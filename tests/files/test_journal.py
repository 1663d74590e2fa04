"""A journal holds every row that was finished, wherever its writer was killed, and has one writer at a time."""

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_ddtree.errors import OptionError
from mlx_ddtree.files.journal import Journal, read_journal

ROWS = [{"number": i, "text": f"Zürich {i}\u2028 \U0001f600", "deep": [[{"a": 1.5}]]} for i in range(4)]


def write(path, rows=ROWS):
    with Journal(path, OptionError) as journal:
        done = [row for _, row in journal.rows]
        for row in rows:
            if row not in done:
                journal.append([row])
    return path.read_bytes()


@settings(max_examples=80, deadline=None)
@given(data=st.data(), raw=st.booleans())
def test_a_journal_goes_on_wherever_it_was_cut(tmp_path_factory, data, raw):
    """Rows that were whole are kept as they are, one that only lacks its newline among them."""
    path = tmp_path_factory.mktemp("journal") / "rows.jsonl"
    whole = "".join(json.dumps(row, ensure_ascii=not raw) + "\n" for row in ROWS).encode()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    kept = [json.dumps(row, ensure_ascii=not raw).encode() for row in ROWS]
    finished = sum(len(b"\n".join(kept[: i + 1])) <= cut for i in range(len(kept)))
    with Journal(path, OptionError) as journal:
        assert [row for _, row in journal.rows] == ROWS[:finished]
    write(path)
    assert [row for _, row in read_journal(path, OptionError)] == ROWS


def test_rows_know_their_lines(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n{"a": 2}')
    assert read_journal(path, OptionError) == [(f"{path}:1", {"a": 1}), (f"{path}:3", {"a": 2})]


def test_opening_changes_nothing(tmp_path):
    path = tmp_path / "rows.jsonl"
    for content in (b'{"a": 1}', b'{"a": 1}\n{"b', b"notes"):
        path.write_bytes(content)
        Journal(path, OptionError).close()
        assert path.read_bytes() == content
    Journal(tmp_path / "new.jsonl", OptionError).close()
    assert not (tmp_path / "new.jsonl").exists()


@pytest.mark.parametrize("line", [b"\xff\xfe", b"{", b"[" * 100_000, b"[1]", b'{"a": ' + b"9" * 6000 + b"}"])
def test_damage_inside_is_named(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 2}\n')
    with pytest.raises(OptionError, match=r"rows\.jsonl:2\b"):
        Journal(path, OptionError)
    Journal(tmp_path / "other.jsonl", OptionError).close()  # the refused one was let go


def test_what_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file" / "rows.jsonl"):
        with pytest.raises(OptionError, match="cannot be written"):
            Journal(path, OptionError)
    with pytest.raises(OptionError, match="does not exist"):
        read_journal(tmp_path / "nothing.jsonl", OptionError)


def test_a_journal_has_one_writer(tmp_path):
    """A second process is refused, readers are not, and a killed writer leaves no lock."""
    path = tmp_path / "rows.jsonl"
    program = f"""
import time
from pathlib import Path
from mlx_ddtree.errors import OptionError
from mlx_ddtree.files.journal import Journal
journal = Journal(Path({str(path)!r}), OptionError)
journal.append([{{"a": 1}}])
print("open", flush=True)
time.sleep(60)
"""
    other = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(OptionError, match="another process"):
            Journal(path, OptionError)
        assert len(read_journal(path, OptionError)) == 1
    finally:
        other.kill()
        other.communicate()
    with Journal(path, OptionError) as journal:
        journal.append([{"a": 2}])
    assert [row["a"] for _, row in read_journal(path, OptionError)] == [1, 2]
