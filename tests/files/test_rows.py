"""Whatever a JSONL file holds, its reader gets objects that can be used, or one line that names the place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_ddtree.errors import OptionError, PromptError
from mlx_ddtree.files.rows import parse_row, read_rows


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"\xff", "not valid JSON: 'utf-8'"),
        (b"{", "not valid JSON"),
        (b"[1]", "does not hold a JSON object"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"a": ' + b"9" * 6000 + b"}", "6,000 digits"),
        (b'{"a": NaN}', "nan"),
        (b'{"a": "\\ud800"}', "half a surrogate pair"),
    ],
)
def test_what_is_no_row_is_named(line, message):
    with pytest.raises(PromptError, match=f"^here .*{message}"):
        parse_row(line, "here", PromptError)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_row_or_an_error(line):
    try:
        row = parse_row(line, "here", OptionError)
    except OptionError as error:
        assert str(error).startswith("here ")
    else:
        assert isinstance(row, dict)


def test_lines_end_where_json_lines_end(tmp_path):
    """A text may hold any other line separator, a pair of surrogates is a character, an editor may write a mark."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes("\ufeff".encode() + '{"a": "x\u2028y\x85"}\r\n\n{"a": "\\ud83d\\ude00"}'.encode())
    first, second = read_rows(path, OptionError)
    assert first == (f"{path}:1", {"a": "x\u2028y\x85"})
    assert second == (f"{path}:3", {"a": "\U0001f600"})
