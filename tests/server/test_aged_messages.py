"""A long conversation whose aged messages are shortened goes on from its prompt cache."""

from mlx_ddtree.pflash.compress import PrefillCompression

from .running import serving

LONG = "def add(a, b):\n    return a + b\n\n\ndef halve(n):\n    return n / 2\n\n\n" * 18
ASKED = {"prefill_compression": "messages", "prefill_threshold": 1000, "prefill_keep_ratio": 0.3}


def conversation(turns):
    messages = []
    for number in range(turns):
        messages.append({"role": "user", "content": f"# {number}\n{LONG}Which function is the first one?"})
        messages.append({"role": "assistant", "content": "add"})
    return [*messages, {"role": "user", "content": "And the second one?"}]


def test_what_aged_is_left_out_told_and_found_again(engine):
    compression = PrefillCompression("off", scorer="lexical")
    with serving(engine, compression=compression) as site:
        answers = []
        goes_on = [{"role": "assistant", "content": "halve"}, {"role": "user", "content": "Thanks."}]
        for messages in (conversation(4), [*conversation(4), *goes_on]):
            asked = {"model": "demo", "messages": messages, "max_tokens": 4, "extra_body": ASKED}
            answers.append(site.openai.chat.completions.create(**asked))
        first, second = (answer.model_extra["mlx_ddtree"]["compression"] for answer in answers)
        assert first["messages"] == second["messages"] >= 2
        assert first["kept_tokens"] < 0.8 * first["prompt_tokens"]
        assert first["prompt_tokens"] == answers[0].usage.prompt_tokens
        assert answers[1].usage.prompt_tokens_details.cached_tokens > 0.8 * second["kept_tokens"]
