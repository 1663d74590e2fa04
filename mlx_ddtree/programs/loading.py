"""The pair that a command line asks for."""

from __future__ import annotations

import argparse

from mlx_ddtree.distributed.load import load
from mlx_ddtree.errors import OptionError
from mlx_ddtree.generation.planning import say_what_is_used
from mlx_ddtree.pair import Pair


def load_models(args: argparse.Namespace, draft: str | bool | None = None) -> Pair:
    """The pair of `add_model_options`.  draft: False loads no drafter; None looks for the one that is known."""
    return load(
        args.model,
        draft,
        pipeline=getattr(args, "pipeline", False),
        revision=args.revision,
        draft_revision=args.draft_revision,
        adapter_path=args.adapter_path,
        trust_remote_code=args.trust_remote_code,
        kernels=args.kernels,
        draft_window=args.draft_window,
    )


def load_pair(args: argparse.Namespace, need_drafter: bool = False) -> Pair:
    """The pair of `add_model_options` and `add_template_options`; a line says what is used without a drafter.

    Plain decoding works for every model, so method 'ar' loads no drafter unless one is named or needed.
    """
    without = args.method == "ar" and not need_drafter and args.draft_model is None
    pair = load_models(args, False if without else args.draft_model)
    if pair.drafter is None and args.method != "ar":
        say_what_is_used(pair, pair.target.supports_trees)
    fit_tokenizer(pair, getattr(args, "extra_eos_token", []), getattr(args, "use_default_chat_template", False))
    return pair


def fit_tokenizer(pair: Pair, end_tokens: list[str], default_template: bool) -> None:
    """Let the tokenizer know further ends of an answer.  Raises OptionError."""
    for token in end_tokens:
        try:
            pair.tokenizer.add_eos_token(token)
        except ValueError as error:
            raise OptionError(f"--extra-eos-token: {error}") from None
    if default_template and not pair.tokenizer.has_chat_template:
        raise OptionError(
            "this tokenizer has no chat template, and transformers has no default one any more: leave out "
            "--use-default-chat-template"
        )
