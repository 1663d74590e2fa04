"""Pairs of any family in folders, as ranks load them."""

import json

import mlx.core as mx
from mlx.utils import tree_flatten

from mlx_ddtree.target import make_target

from ..families import COMMON, FAMILIES, tiny_model
from ..helpers import save_drafter, small_drafter
from ..training.tiny import EOS, make_tokenizer


def save_pair(folder, name, bits=None, **changes):
    """folder/target and folder/drafter of one of FAMILIES; changes: to its config (or its text_config)."""
    config = COMMON | FAMILIES[name] | {"eos_token_id": EOS}
    if "text_config" in config:
        config["text_config"] = config["text_config"] | changes
    else:
        config |= changes
    model = tiny_model(config, bits=bits)
    if bits is not None:
        config["quantization"] = {"group_size": 32, "bits": bits}
    target, weights = make_target(model), dict(tree_flatten(model.parameters()))
    (folder / "target").mkdir(parents=True)
    (folder / "target" / "config.json").write_text(json.dumps(config))
    stored = {k: v.astype(mx.bfloat16) if v.ndim > 1 and bits is None else v for k, v in weights.items()}
    mx.save_safetensors(str(folder / "target" / "model.safetensors"), stored, metadata={"format": "mlx"})
    make_tokenizer()._tokenizer.save_pretrained(folder / "target")
    save_drafter(folder / "drafter", small_drafter(target))
    return folder
