"""A GGUF file's vocabulary to the tokenizer files of a public checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from mlx_ddtree.errors import WeightsError

SPECIAL, USER_DEFINED = 3, 4
"""Types of tokens in a GGUF file that are matched as a whole; only special ones are left out of an answer's text."""


def write_tokenizer(facts: Mapping[str, Any], folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json to `folder`.

    facts: the GGUF file's.  Raises WeightsError for a vocabulary that is not SmolLM's kind.
    """
    pieces = facts["tokenizer.ggml.tokens"]
    tokenizer = make_tokenizer(facts)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {}
    for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        token_id = facts.get(f"tokenizer.ggml.{theirs}_token_id")
        if token_id is not None:
            named[f"{ours}_token"] = pieces[token_id]
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": facts["llama.context_length"],
        **named,
    }
    template = facts.get("tokenizer.chat_template")
    if template:
        settings["chat_template"] = template
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def make_tokenizer(facts: Mapping[str, Any]) -> Tokenizer:
    """Byte-level BPE that splits numbers into digits, as SmolLM's own tokenizer.json does."""
    kind = (facts.get("tokenizer.ggml.model"), facts.get("tokenizer.ggml.pre"))
    if kind != ("gpt2", "smollm") or facts.get("tokenizer.ggml.add_bos_token"):
        raise WeightsError(f"the GGUF file's vocabulary is {kind}, which is not read here; take the model from the Hub")
    pieces = facts["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in facts["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({piece: token_id for token_id, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    types = facts["tokenizer.ggml.token_type"].tolist()
    for wanted, add in ((SPECIAL, tokenizer.add_special_tokens), (USER_DEFINED, tokenizer.add_tokens)):
        # In one call: each one builds the matcher of whole tokens anew.
        whole = [piece for piece, token_type in zip(pieces, types, strict=True) if token_type == wanted]
        add([AddedToken(piece, normalized=False, special=wanted == SPECIAL) for piece in whole])
    return tokenizer
