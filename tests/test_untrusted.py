"""Whatever a JSON text from outside holds, reading it gives an object or one line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mlx_ddtree.errors import ConfigError, OptionError
from mlx_ddtree.untrusted import MOST_LEVELS, read_json


def nested(levels: int) -> str:
    return '{"a": ' + "[" * (levels - 1) + "]" * (levels - 1) + "}"


REFUSED = {
    "deeper than the parser's stack": nested(100_000),
    "deeper than allowed": nested(MOST_LEVELS + 2),
    "a number of 6,000 digits": '{"a": ' + "9" * 6000 + "}",
    "a negative number of 6,000 digits": '{"a": -' + "9" * 6000 + "}",
    "not a number": '{"a": NaN}',
    "infinite": '{"a": [1e999]}',
    "half a surrogate pair": '{"a": "\\ud800"}',
    "half a surrogate pair in a key": '{"\\udfff": 1}',
    "a list": "[1]",
    "a number": "1",
    "null": "null",
    "nothing": "",
    "cut off": '{"a": ',
    "two values": "{} {}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "Latin-1": '{"a": "ä"}'.encode("latin-1"),
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_sound_object_is_refused_with_one_line_that_names_the_source(text: str | bytes) -> None:
    with pytest.raises(OptionError) as caught:
        read_json(text, name="the request", error=OptionError)
    assert str(caught.value).startswith("the request ")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_a_file_is_read_by_the_same_rules(text: str | bytes, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=r"config\.json"):
        read_json(file)


def test_a_sound_object_comes_back_as_python_would_read_it(tmp_path: Path) -> None:
    value = {"a": [1, -2.5, True, None, "ä 漢 \U0001f600"], "b": {"c": {}}, "seed": 2**64 - 1}
    text = json.dumps(value)
    assert read_json(text) == read_json(text.encode()) == value
    (tmp_path / "x.json").write_text(text, encoding="utf-8")
    assert read_json(tmp_path / "x.json") == value


def test_the_deepest_allowed_nesting_passes() -> None:
    assert read_json(nested(MOST_LEVELS))["a"]


def test_integers_beyond_64_bits_become_floats_so_that_no_array_overflows() -> None:
    value = read_json('{"model_max_length": 1000000000000000019884624838656, "least": -9223372036854775808}')
    assert value == {"model_max_length": 1e30, "least": -(2**63)}
    assert isinstance(value["model_max_length"], float)


@pytest.mark.parametrize(
    ("number", "kind"), [(-(2**63), int), (-(2**63) - 1, float), (2**64 - 1, int), (2**64, float), (2**65 - 1, float)]
)
def test_whole_numbers_stay_whole_up_to_the_last_that_an_array_holds(number: int, kind: type) -> None:
    value = read_json(f'{{"n": {number}}}')["n"]
    assert type(value) is kind
    assert value == kind(number)


def test_infinity_passes_where_the_caller_says_so() -> None:
    assert read_json('{"time_step_limit": [0.0, Infinity]}', finite=False)["time_step_limit"][1] == float("inf")


def test_size_is_limited_before_parsing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="larger than 10 bytes"):
        read_json('{"a": "bcdefg"}', most_bytes=10)
    (tmp_path / "x.json").write_text('{"a": "bcdefg"}')
    with pytest.raises(ConfigError, match="larger than 10 bytes"):
        read_json(tmp_path / "x.json", most_bytes=10)


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_json(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="is not a file"):
        read_json(tmp_path)
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ConfigError, match="is not a file"):
        read_json(tmp_path / "pipe.json")
