"""Chat templates are programs of others: what they refuse is one line, and no role vanishes without a word."""

import copy

import pytest

from mlx_ddtree import generate, load
from mlx_ddtree.errors import OptionError, PromptError
from mlx_ddtree.generation.prompts import chat_token_ids, prompt_token_ids

NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system\nmessages here') }}{% endif %}"
    "{% for m in messages %}{{ m.content }}{% endfor %}"
)
ALTERNATING = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{{ m.content }}{% endfor %}"
)
THREE_ROLES = (
    "{% for m in messages %}{% if m.role in ('system', 'user', 'assistant') %}[{{ m.role }}]{{ m.content }}"
    "{% endif %}{% endfor %}"
)
DEVELOPER = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{# developer #}"
SYSTEM = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def pair():
    return load()


@pytest.fixture
def with_template(pair):
    def change(template):
        changed = copy.copy(pair)
        changed.tokenizer = copy.deepcopy(pair.tokenizer)
        changed.tokenizer.chat_template = template
        return changed

    return change


@pytest.mark.parametrize(
    ("template", "messages", "says"),
    [
        (NO_SYSTEM, SYSTEM, "no system messages here"),
        (ALTERNATING, [SYSTEM[1], SYSTEM[1]], "roles must alternate"),
        ("{{ messages[7].content }}", SYSTEM, "template cannot use"),
        ("{% broken", SYSTEM, "template cannot use"),
    ],
)
def test_a_template_that_refuses_gives_one_line(with_template, template, messages, says):
    with pytest.raises(PromptError, match=says) as caught:
        generate(with_template(template), messages, 4)
    assert "\n" not in str(caught.value)


def test_a_developer_is_a_system_to_templates_that_know_none(with_template):
    messages = [{"role": "developer", "content": "French only"}, {"role": "user", "content": "hi"}]
    for template, role in ((THREE_ROLES, "system"), (DEVELOPER, "developer")):
        changed = with_template(template)
        text = changed.tokenizer.decode(prompt_token_ids(changed, messages))
        assert f"[{role}]French only" in text
    assert messages[0]["role"] == "developer"


@pytest.mark.parametrize("option", [{"tokenize": False}, {"add_generation_prompt": False}, {"return_dict": True}])
def test_options_that_are_not_the_templates_are_refused(pair, option):
    with pytest.raises(OptionError, match="cannot set"):
        chat_token_ids(pair.tokenizer, SYSTEM, option)


def test_an_answer_that_is_begun_is_gone_on_with(pair):
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "def begun"}]
    ids = chat_token_ids(pair.tokenizer, messages, continue_last=True)
    assert pair.tokenizer.decode(ids).endswith("def begun")


@pytest.mark.parametrize("prompt", ["caf\udce9", [{"role": "user", "content": "caf\udce9"}]], ids=["text", "messages"])
def test_half_characters_are_refused(pair, prompt):
    with pytest.raises(PromptError, match="UTF-8"):
        generate(pair, prompt, 4)
