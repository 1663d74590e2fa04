"""The form in which a chat template takes texts, and the token that ends its answers, are the template's own."""

import pytest

from mlx_ddtree.training.chat_format import ChatFormat, texts_of
from mlx_ddtree.training.examples import DataError
from mlx_ddtree.training.reading import read_examples

from . import templates
from .test_reading import write
from .tiny import EOS, make_special_tokenizer, make_tokenizer

TALK = [{"role": "user", "content": "hi"}]
PARTS = [{"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}]


@pytest.mark.parametrize(
    ("make", "end"),
    [
        (templates.qwen3, "<|im_end|>"),
        (templates.llama3, "<|eot_id|>"),
        (templates.llama3_base_end, "<|eot_id|>"),
        (templates.glm4, "<|user|>"),
        (templates.parts_only, "<|im_end|>"),
        (templates.smollm2, "<|im_end|>"),
    ],
)
def test_an_answer_ends_as_the_template_ends_it(tmp_path, make, end):
    """Not with the lowest of several end tokens: Llama 3.1 ends with 128009, not 128001."""
    tokenizer = make()
    row = {"prompt": "hi", "response": "yes"}
    (example,) = read_examples([write(tmp_path, "a.jsonl", row)], ChatFormat(tokenizer), 9)
    assert tokenizer.decode(list(example.response_tokens)) == "yes" + end
    whole = tokenizer.decode(list(example.token_ids))
    assert whole.count("hi") == whole.count("yes") == 1


def test_without_an_end_in_the_template_it_is_the_tokenizers(caplog):
    assert ChatFormat(make_tokenizer()).end_tokens == (EOS,)
    assert ChatFormat(make_tokenizer(chat=False)).end_tokens == (EOS,)
    one = make_special_tokenizer(("<a>", "<b>"), None, eos=None, eos_token_ids=["<b>"])
    assert ChatFormat(one).end_tokens == (one.convert_tokens_to_ids("<b>"),)
    two = make_special_tokenizer(("<a>", "<b>"), None, eos=None, eos_token_ids=["<a>", "<b>"])
    assert ChatFormat(two).end_tokens == ()
    assert "without an end" in caplog.text


@pytest.mark.parametrize(
    "make", [templates.qwen3, templates.llama3, templates.glm4, templates.parts_only, make_tokenizer]
)
def test_parts_reach_any_template(make):
    chat_format = ChatFormat(make())
    prompt = chat_format.prompt_tokens(PARTS)
    assert prompt == chat_format.prompt_tokens(TALK)
    assert "hi" in chat_format.tokenizer.decode(list(prompt))
    assert PARTS[0]["content"][0] == {"type": "text", "text": "h"}  # the caller's are left alone


def test_only_templates_that_need_parts_get_them():
    assert ChatFormat(templates.parts_only()).takes_parts
    assert not ChatFormat(templates.qwen3()).takes_parts


def test_what_a_template_refuses_is_said(tmp_path):
    template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + templates.GLM4
    )
    tokenizer = make_special_tokenizer(("<|end|>",), template, eos="<|end|>")
    chat_format = ChatFormat(tokenizer)
    row = {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]}
    with pytest.raises(DataError, match=r"a\.jsonl:2: the chat template refuses .*no system role"):
        read_examples([write(tmp_path, "a.jsonl", {"prompt": "hi"}, row)], chat_format, 9)
    with pytest.raises(DataError, match="shows no text"):
        ChatFormat(make_special_tokenizer(("<|end|>",), "nothing of it", eos="<|end|>"))


@pytest.mark.parametrize(
    "content",
    [3, [3], [{"type": "text"}], [{"text": "x"}], [{"type": "image_url", "image_url": "x"}], {"type": "text"}],
)
def test_content_that_is_no_text_is_refused(content):
    with pytest.raises(DataError, match="content must be a text"):
        texts_of([{"role": "user", "content": content}])
