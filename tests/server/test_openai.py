"""The official client gets what mlx_ddtree.generate says, whole or in pieces."""

import openai
import pytest
from mlx_lm.sample_utils import make_logits_processors

from mlx_ddtree import generate, make_sampler

from .running import OTHER, QUESTION, serving, text_of

ASK = {"model": "demo", "messages": QUESTION, "max_tokens": 60}


def test_a_chat_says_what_generate_says(site, pair):
    whole = site.openai.chat.completions.create(temperature=0, **ASK)
    chunks = list(site.openai.chat.completions.create(stream=True, stream_options={"include_usage": True}, **ASK))
    expected = generate(pair, QUESTION, 60)
    assert whole.choices[0].message.content == text_of(chunks) == expected
    assert whole.choices[0].message.role == chunks[0].choices[0].delta.role == "assistant"
    assert whole.choices[0].finish_reason == chunks[-2].choices[0].finish_reason == "length"
    for usage in (whole.usage, chunks[-1].usage):
        assert usage.completion_tokens == 60
        assert usage.prompt_tokens == len(pair.tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True))
        assert usage.total_tokens == usage.prompt_tokens + 60
    assert chunks[-1].choices == [] and all(chunk.usage is None for chunk in chunks[:-1])
    for figures in (whole.model_extra["mlx_ddtree"], chunks[-2].model_extra["mlx_ddtree"]):
        assert figures["acceptance_length"] == pytest.approx(59 / figures["rounds"], abs=1e-3)
        assert sum(figures["kinds"].values()) == figures["rounds"] <= 59  # where all looks dear, steps are plain


@pytest.mark.parametrize("as_ids", [False, True])
def test_a_completion_says_what_generate_says(site, pair, as_ids):
    prompt = pair.tokenizer.encode("def add(") if as_ids else "def add("
    expected = generate(pair, prompt, 40)
    whole = site.openai.completions.create(model="demo", prompt=prompt, max_tokens=40)
    chunks = site.openai.completions.create(model="demo", prompt=[prompt][0], max_tokens=40, stream=True)
    assert whole.choices[0].text == "".join(chunk.choices[0].text for chunk in chunks) == expected


def test_a_seed_gives_the_text_of_that_seed(site, pair):
    options = {"temperature": 0.9, "top_p": 0.95, "seed": 7, "extra_body": {"top_k": 50, "min_p": 0.02}}
    texts = [
        site.openai.chat.completions.create(**ASK, **options),
        site.openai.chat.completions.create(**ASK, **options | {"seed": 8}),
        site.openai.chat.completions.create(**ASK, **options),
    ]
    first, other, again = (answer.choices[0].message.content for answer in texts)
    assert first == again == generate(pair, QUESTION, 60, sampler=make_sampler(0.9, 0.95, 0.02, top_k=50, seed=7))
    assert other != first


def test_penalties_and_biases_are_mlx_lms(site, pair):
    processors = make_logits_processors({100: 5.0}, 1.2, 30, 0.5, 20, 0.3, 20)
    answer = site.openai.chat.completions.create(
        **ASK | {"max_tokens": 30},
        presence_penalty=0.5,
        frequency_penalty=0.3,
        logit_bias={"100": 5},
        extra_body={"repetition_penalty": 1.2, "repetition_context_size": 30},
    )
    assert answer.choices[0].message.content == generate(pair, QUESTION, 30, logits_processors=processors)


def test_a_penalised_answer_does_not_depend_on_what_is_cached(site, pair):
    """Processors see all tokens before, also those that a cache stands for."""
    messages = [{"role": "user", "content": "tiger tiger writes def add(a, b) tiger"}]
    penalties = {"repetition_penalty": 1.5, "presence_penalty": 3.0, "frequency_penalty": 2.0}
    sizes = dict.fromkeys([name.replace("penalty", "context_size") for name in penalties], 1000)
    answers = [
        site.openai.chat.completions.create(
            model="demo", messages=messages, max_tokens=24, extra_body=penalties | sizes
        )
        for _ in range(3)
    ]
    assert answers[-1].usage.prompt_tokens_details.cached_tokens > 0
    processors = make_logits_processors(None, 1.5, 1000, 3.0, 1000, 2.0, 1000)
    expected = generate(pair, messages, 24, logits_processors=processors)
    assert [answer.choices[0].message.content for answer in answers] == [expected] * 3


def test_several_answers_have_the_texts_of_their_seeds(site, pair):
    ask = ASK | {"max_tokens": 20, "n": 3, "temperature": 0.9, "seed": 7}
    expected = [generate(pair, QUESTION, 20, sampler=make_sampler(0.9, seed=7 + number)) for number in range(3)]
    whole = site.openai.chat.completions.create(**ask)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert [choice.message.content for choice in whole.choices] == expected and len(set(expected)) > 1
    chunks = list(site.openai.chat.completions.create(stream=True, stream_options={"include_usage": True}, **ask))
    texts = ["", "", ""]
    for chunk in chunks[:-1]:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == expected and len({chunk.id for chunk in chunks}) == 1
    prompt = len(pair.tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True))
    for usage in (whole.usage, chunks[-1].usage):
        assert (usage.prompt_tokens, usage.completion_tokens) == (prompt, 60)
    assert sum(chunk.usage is not None for chunk in chunks) == 1
    assert len(whole.model_extra["mlx_ddtree"]["answers"]) == 3


def test_several_prompts_are_answered_one_after_the_other(site, pair):
    prompts = ["def add(", "class Stack"]
    expected = [generate(pair, prompt, 12) for prompt in prompts]
    for form in (prompts, [pair.tokenizer.encode(prompt) for prompt in prompts]):
        whole = site.openai.completions.create(model="demo", prompt=form, max_tokens=12, n=2)
        assert [choice.text for choice in whole.choices] == [text for text in expected for _ in range(2)]
        assert whole.usage.prompt_tokens == sum(len(pair.tokenizer.encode(prompt)) for prompt in prompts)
        assert whole.usage.completion_tokens == 48


def test_paths_work_without_their_version(site, pair):
    answer = site.http.post("/chat/completions", json=ASK | {"max_tokens": 5}).json()
    assert answer["choices"][0]["message"]["content"] == generate(pair, QUESTION, 5)
    assert site.http.get("/models").json()["data"][0]["id"] == "demo"


def test_a_stop_string_ends_the_text(site, pair):
    for stop in ("return", ["return", "nowhere"]):
        answer = site.openai.chat.completions.create(stop=stop, **ASK | {"max_tokens": 200})
        text = answer.choices[0].message.content
        assert answer.choices[0].finish_reason == "stop"
        assert text and "return" not in text
        assert text == generate(pair, QUESTION, 200, stop=["return"])


def test_a_chats_log_probabilities(site):
    whole = site.openai.chat.completions.create(logprobs=True, top_logprobs=3, **ASK)
    entries = whole.choices[0].logprobs.content
    assert "".join(entry.token for entry in entries) == whole.choices[0].message.content
    for entry in entries:
        values = [other.logprob for other in entry.top_logprobs]
        assert values == sorted(values, reverse=True) and len(values) == 3
        assert entry.token == entry.top_logprobs[0].token and entry.logprob == values[0] <= 0  # greedy
        assert bytes(entry.bytes).decode() == entry.token
    chunks = site.openai.chat.completions.create(logprobs=True, top_logprobs=3, stream=True, **ASK)
    streamed = [entry for c in chunks if c.choices[0].logprobs for entry in c.choices[0].logprobs.content]
    assert [e.token for e in streamed] == [e.token for e in entries]
    assert [e.logprob for e in streamed] == pytest.approx([e.logprob for e in entries], abs=1e-3)
    without = site.openai.chat.completions.create(**ASK)
    assert without.choices[0].logprobs is None


def test_a_completions_log_probabilities(site):
    ask = {"model": "demo", "prompt": "def add(", "max_tokens": 20, "logprobs": 2}
    whole = site.openai.completions.create(**ask).choices[0]
    found = whole.logprobs
    assert "".join(found.tokens) == whole.text
    assert [whole.text[at:][: len(t)] for at, t in zip(found.text_offset, found.tokens, strict=True)] == found.tokens
    for token, value, top in zip(found.tokens, found.token_logprobs, found.top_logprobs, strict=True):
        assert len(top) == 2 and top[token] == value == max(top.values())
    chunks = [c.choices[0].logprobs for c in site.openai.completions.create(stream=True, **ask)]
    assert [t for c in chunks if c for t in c.tokens] == found.tokens
    assert [at for c in chunks if c for at in c.text_offset] == found.text_offset


def test_the_next_turn_is_processed_once(site, pair):
    first = site.openai.chat.completions.create(**ASK | {"messages": OTHER})
    answer = {"role": "assistant", "content": first.choices[0].message.content}
    messages = [*OTHER, answer, {"role": "user", "content": "Now one for lists."}]
    second = site.openai.chat.completions.create(**ASK | {"messages": messages})
    said = first.usage.prompt_tokens + first.usage.completion_tokens
    assert second.usage.prompt_tokens_details.cached_tokens >= said - 2
    assert second.choices[0].message.content == generate(pair, messages, 60)


def test_models(site):
    assert [model.id for model in site.openai.models.list()] == ["demo"]
    assert site.openai.models.retrieve("demo").id == "demo"
    with pytest.raises(openai.NotFoundError, match="served here"):
        site.openai.models.retrieve("another/one")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model": "gpt-4"}, openai.NotFoundError, "served here"),
        ({"n": 99}, openai.BadRequestError, "n: must be at most 16"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"messages": [{"role": "user", "content": "word " * 9000}]}, openai.BadRequestError, "context ends at 8192"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, openai.BadRequestError, "'text'"),
        ({"messages": [{"content": "x"}]}, openai.BadRequestError, "messages.0.role"),
        ({"max_tokens": -1}, openai.BadRequestError, "at least 1; leave it out"),
        ({"extra_body": {"guided_json": {}}}, openai.BadRequestError, "guided_json: this request has no such field"),
        ({"temperature": -1}, openai.BadRequestError, "temperature"),
        ({"temperature": "hot"}, openai.BadRequestError, "temperature"),
        ({"max_tokens": 0}, openai.BadRequestError, "max_tokens"),
        ({"top_logprobs": 2}, openai.BadRequestError, "needs logprobs"),
        ({"logit_bias": {"99999999": 1}}, openai.BadRequestError, "token ids, 0 to"),
        ({"response_format": {"type": "xml"}}, openai.BadRequestError, 'use {"type": "text"}'),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, openai.BadRequestError, "no tool calls"),
        ({"tool_choice": "required"}, openai.BadRequestError, "no tools that could be called"),
        ({"extra_body": {"chat_template_kwargs": {"tokenize": False}}}, openai.BadRequestError, "tokenize"),
    ],
)
def test_refusals_say_what_to_change(site, change, error, words):
    with pytest.raises(error, match=words) as refusal:
        site.openai.chat.completions.create(**ASK | change)
    assert refusal.value.body["type"] == "invalid_request_error"


def test_a_refusal_streams_nothing(site):
    with pytest.raises(openai.BadRequestError):
        site.openai.chat.completions.create(stream=True, **ASK | {"messages": []})


def test_a_key_is_asked_for(engine):
    with serving(engine, api_key="secret") as site:
        assert site.http.get("/health").status_code == 200
        for path in ("/v1/models", "/metrics"):
            assert site.http.get(path).status_code == 401
        with pytest.raises(openai.AuthenticationError, match="API key"):
            site.openai.chat.completions.create(**ASK)
        with pytest.raises(openai.AuthenticationError):
            site.openai.with_options(api_key="secreT").models.list()
        assert site.openai.with_options(api_key="secret").models.list().data


def test_other_sites_pages_have_no_way_in(engine, site):
    assert site.http.get("/v1/models", headers={"Host": "evil.example"}).status_code == 400
    body = {"content": b'{"prompt": "x"}', "headers": {"Content-Type": "text/plain"}}
    assert site.http.post("/v1/completions", **body).status_code == 415
    origin = {"Origin": "https://page.example"}
    assert "access-control-allow-origin" not in site.http.get("/health", headers=origin).headers
    with serving(engine, origins=["https://page.example"]) as open_site:
        allowed = open_site.http.get("/health", headers=origin).headers
        assert allowed["access-control-allow-origin"] == "https://page.example"
