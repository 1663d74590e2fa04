"""Chat templates in the forms of public models, and their special tokens: (tokens, template, options)."""

from .tiny import make_special_tokenizer

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim"
    " + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GLM4 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
PARTS_ONLY = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + ': ' }}{% for part in m['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant: ' }}{% endif %}"
)
CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LLAMA3_TOKENS = (
    *("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>"),
)


def qwen3(**options):
    """The config ends with <|im_end|> and <|endoftext|>; the lower id is not what ends an answer."""
    ends = ("<|im_end|>", "<|endoftext|>")
    return make_special_tokenizer(CHATML_TOKENS, CHATML, eos="<|im_end|>", eos_token_ids=ends, **options)


def llama3(**options):
    ends = ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")
    return make_special_tokenizer(LLAMA3_TOKENS, LLAMA3, eos="<|eot_id|>", eos_token_ids=ends, **options)


def llama3_base_end(**options):
    """As some conversions have it: the tokenizer's own end token is the one of plain text."""
    ends = ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")
    return make_special_tokenizer(LLAMA3_TOKENS, LLAMA3, eos="<|end_of_text|>", eos_token_ids=ends, **options)


def glm4(**options):
    """An answer ends where the next question would begin."""
    tokens = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
    ends = ("<|endoftext|>", "<|user|>", "<|observation|>")
    return make_special_tokenizer(tokens, GLM4, eos="<|endoftext|>", eos_token_ids=ends, **options)


def parts_only(**options):
    return make_special_tokenizer(CHATML_TOKENS, PARTS_ONLY, eos="<|im_end|>", **options)


def smollm2(**options):
    """No row of the embedding is left over: special tokens for data formats are there instead."""
    tokens = (*CHATML_TOKENS, "<repo_name>", "<file_sep>", "<empty_output>")
    named = {"bos_token": "<|im_start|>", "pad_token": "<|im_end|>"}
    return make_special_tokenizer(tokens, CHATML, eos="<|im_end|>", **named, **options)
