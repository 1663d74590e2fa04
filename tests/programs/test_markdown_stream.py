"""An answer in Markdown looks the same however it arrived, and no part of it is shown twice."""

import io

import pytest
from rich.console import Console

from mlx_ddtree.programs.markdown_stream import MarkdownStream, split_blocks

ANSWER = """\
# Reversing

Use a *slice*:

```python
def reverse(text: str) -> str:

    return text[::-1]
```

1. It is short.

   And clear.

2. It is fast.

| a | b |
|---|---|
| 1 | 2 |

The end"""


def streamed(text, size, width=60):
    """What stands on the terminal in the end, when the text came in pieces of so many characters."""
    console = Console(file=io.StringIO(), width=width)
    with MarkdownStream(console) as shown:
        for start in range(0, len(text), size):
            shown.feed(text[start : start + size])
    return console.file.getvalue()


@pytest.mark.parametrize("size", [1, 7, 50])
def test_the_pieces_do_not_matter(size):
    whole = streamed(ANSWER, len(ANSWER))
    assert streamed(ANSWER, size) == whole
    for part in ("Reversing", "def reverse", "And clear", "The end"):
        assert whole.count(part) == 1
    assert "```" not in whole and "*slice*" not in whole


@pytest.mark.parametrize(
    ("text", "finished"),
    [
        ("one line", ""),
        ("a\n\n", ""),
        ("a\n\nb", "a\n\n"),
        ("a\n\n  indented", ""),
        ("```\na\n\nb", ""),
        ("```\na\n\nb\n```\n\nc", "```\na\n\nb\n```\n\n"),
        ("~~~~\na\n~~~\n\nb", ""),
    ],
)
def test_blocks_end_where_nothing_can_change_them(text, finished):
    assert split_blocks(text) == ([finished] if finished else []) + [text[len(finished) :]]


def test_what_an_interrupt_leaves_is_shown_once():
    console = Console(file=io.StringIO(), width=60)
    with pytest.raises(KeyboardInterrupt), MarkdownStream(console) as shown:
        shown.feed("done\n\nhalf a")
        raise KeyboardInterrupt
    assert console.file.getvalue().split() == ["done", "half", "a"]
