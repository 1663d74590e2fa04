"""mlx-vlm's speculative decoding with a DFlash drafter; written for 0.7.10.

Options: draft_block_size, the largest block, root included; the program adapts the size below it.

Its qwen3 text model does not return the hidden states that its own drafters need.  `_with_taps` gives the loaded model
a language model that does, over the same layers and weights; nothing else of the program is touched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

PACKAGES = ("mlx-vlm",)


def load(folders: dict[str, str]) -> Any:
    from pathlib import Path  # noqa: PLC0415

    from mlx_vlm.speculative.drafters import load_drafter  # noqa: PLC0415  (MLX after the BLAS)
    from mlx_vlm.utils import load_model  # noqa: PLC0415

    model = _with_taps(load_model(Path(folders["target"])))
    drafter, kind = load_drafter(folders["drafter"])
    return model, drafter, kind


def answer(loaded: Any, ask: dict[str, Any], tell: Callable[[list[int]], None]) -> dict[str, Any]:
    import mlx.core as mx  # noqa: PLC0415
    from mlx_vlm.generate.ar import generate_step  # noqa: PLC0415

    model, drafter, kind = loaded
    mx.random.seed(ask["seed"])
    ends = set(ask["ends"])
    stream = generate_step(
        mx.array([ask["prompt"]]),
        model,
        None,
        None,
        max_tokens=ask["most"],
        temperature=ask["temp"],
        draft_model=drafter,
        draft_kind=kind,
        draft_block_size=ask["options"]["draft_block_size"],
    )
    for token, _ in stream:
        tell([token])
        if token in ends:
            break
    stream.close()
    return {"rounds": len(drafter.accept_lens)}


def _with_taps(model: Any) -> Any:
    """The model, whose language model returns what the asked layers have computed; only qwen3 lacks that."""
    from mlx_vlm.models.base import LanguageModelOutput, create_attention_mask  # noqa: PLC0415
    from mlx_vlm.models.qwen3 import language  # noqa: PLC0415

    plain = model.language_model
    if type(plain) is not language.LanguageModel:
        return model

    class Tapped(language.LanguageModel):
        def __call__(
            self,
            inputs: Any = None,
            cache: Any = None,
            inputs_embeds: Any = None,
            capture_layer_ids: Any = None,
            **options: Any,
        ) -> Any:
            network = self.model
            h = network.embed_tokens(inputs) if inputs_embeds is None else inputs_embeds
            mask = create_attention_mask(h, cache[0])
            captured = {}
            for index, (layer, layer_cache) in enumerate(zip(network.layers, cache, strict=True)):
                h = layer(h, mask, layer_cache)
                captured[index] = h
            keep = options.get("logits_to_keep") or h.shape[1]
            out = network.norm(h[:, -keep:])
            logits = network.embed_tokens.as_linear(out) if self.args.tie_word_embeddings else self.lm_head(out)
            hidden = None if capture_layer_ids is None else [captured[index] for index in capture_layer_ids]
            return LanguageModelOutput(logits=logits, hidden_states=hidden)

    tapped = Tapped(plain.args)
    tapped.update_modules(plain.children())
    model.language_model = tapped
    return model
