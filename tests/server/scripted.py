"""A stand-in for models that know what to say: a script gives the answers, everything around them is real.

The pair is tiny and random.  Its tokenizer is the embedded one with another family's template and markers, and the tokens of
a script's answer are forced upon it, so prompts are rendered, processed and cached, and answers decoded, read and
streamed, as a real model's are.
"""

import json
import tempfile
from importlib.resources import files
from pathlib import Path

import mlx.core as mx
from mlx_lm.tokenizer_utils import load as load_tokenizer

from mlx_ddtree.pair import Pair
from mlx_ddtree.server.answering import Answering
from mlx_ddtree.server.engine import Engine
from mlx_ddtree.target import make_target

from ..families import tiny_model

DEMO = files("mlx_ddtree") / "demo" / "target"
TEMPLATES = Path(__file__).parent / "templates"
THINKING = ("<think>", "</think>")


def template_of(family):
    """A family's chat template: "qwen3" or "hermes"."""
    return (TEMPLATES / f"{family}.jinja").read_text()


def tokenizer_with(template, extra=THINKING):
    """The embedded model's tokenizer with another template and more tokens, from which mlx-lm infers a family's markers."""
    with tempfile.TemporaryDirectory() as folder:
        content = json.loads((DEMO / "tokenizer.json").read_text())
        size = 1 + max(token["id"] for token in content["added_tokens"] + [{"id": len(content["model"]["vocab"])}])
        plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
        content["added_tokens"] += [plain | {"id": size + i, "content": text} for i, text in enumerate(extra)]
        Path(folder, "tokenizer.json").write_text(json.dumps(content))
        config = json.loads((DEMO / "tokenizer_config.json").read_text())
        Path(folder, "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
        return load_tokenizer(Path(folder))


def scripted_pair(template, context=2**18):
    """A tiny random target with this template, and no drafter: what an answer repeats of its prompt is drafted."""
    tokenizer = tokenizer_with(template)
    size = 64 * (len(tokenizer.get_vocab()) // 64 + 1)
    small = {"num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}  # agents' prompts are long
    config = {"model_type": "qwen3", "vocab_size": size, "max_position_embeddings": context, "rope_scaling": None}
    return Pair(make_target(tiny_model(config | small)), None, tokenizer)


class Forced:
    """A logits processor that lets an answer's tokens be said, and nothing else.

    begin: the prompt's length in tokens.
    """

    def __init__(self, begin, tokens):
        self.begin, self.tokens = begin, tokens

    def __call__(self, tokens, logits):
        place = min(len(tokens) - self.begin, len(self.tokens) - 1)
        allowed = mx.arange(logits.shape[-1]) == self.tokens[place]
        return mx.where(allowed, mx.zeros_like(logits), -mx.inf)


class ScriptedEngine(Engine):
    """Says what `script` makes of a prompt's text."""

    def __init__(self, load_pair, script, **options):
        decoding = {"method": "ddtree", "tree_budget": 4, "parity": "off"}
        bounds = {"queue_size": 32, "cache_size": 10, "cache_bytes": 2**30}
        super().__init__(load_pair, decoding, **bounds | options)
        self.script = script
        self.prompts = []

    def _prepare(self):
        super()._prepare()
        own = self._answering
        self._answering = ScriptedAnswering(own.pair, own.sessions, own.decoding, own.metrics)
        self._answering.says = self._says

    def _says(self, prompt):
        self.prompts.append(prompt)
        return self.script(prompt)


class ScriptedAnswering(Answering):
    """Answers with what `says` makes of a prompt's text."""

    says = None

    def steps(self, job, between):
        tokenizer = self.pair.tokenizer
        answer = self.says(tokenizer.decode(job.ids))
        said = [*tokenizer.encode(answer, add_special_tokens=False), tokenizer.eos_token_id]
        asked = job.options
        job.options = lambda: forced(asked(), Forced(len(job.ids), said))
        return super().steps(job, between)


def forced(options, processor):
    return options | {"logits_processors": [*options["logits_processors"], processor]}
