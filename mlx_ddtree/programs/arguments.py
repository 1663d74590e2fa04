"""The command line's options that several programs share; those of generation are made from GenerationOptions."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from mlx_ddtree.distributed.load import load
from mlx_ddtree.errors import MlxDdtreeError, OptionError
from mlx_ddtree.generation.flags import Flag
from mlx_ddtree.generation.options import DEFAULTS, FLAGS, GenerationOptions
from mlx_ddtree.generation.planning import say_what_is_used
from mlx_ddtree.machine import __version__
from mlx_ddtree.pair import Pair
from mlx_ddtree.untrusted import read_json

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def add_model_names(group: argparse._ArgumentGroup) -> None:
    """Which target and drafter, by name."""
    group.add_argument("--model", help="target: local folder or Hugging Face repository (default: the embedded pair)")
    group.add_argument("--draft-model", help="drafter: folder or repository (default: looked up for public targets)")
    group.add_argument("--revision", help="branch, tag or commit of --model")
    group.add_argument("--draft-revision", help="branch, tag or commit of --draft-model")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Which target and drafter, and how they are loaded."""
    group = parser.add_argument_group("models")
    add_model_names(group)
    group.add_argument("--adapter-path", help="LoRA adapters to apply to the target")
    group.add_argument(
        "--kernels", choices=("auto", "on", "off"), default="auto", help="Metal kernels: where they are faster, or not"
    )
    group.add_argument(
        "--draft-window",
        type=positive,
        metavar="N",
        help="let the drafter see only the last N tokens: drafting stays fast in long contexts, the output the same",
    )
    group.add_argument("--trust-remote-code", action="store_true", help="allow custom tokenizer or model code")
    group.add_argument(
        "--pipeline",
        action="store_true",
        help="under mlx.launch: give every machine whole layers, not a part of each (docs/distributed.md)",
    )


def add_template_options(parser: argparse.ArgumentParser) -> None:
    """How messages become a prompt and where answers end, named like mlx-lm's."""
    group = parser.add_argument_group("prompt")
    group.add_argument("--system-prompt", help="system message for the chat template")
    group.add_argument(
        "--extra-eos-token", nargs="+", default=[], metavar="TOKEN", help="further tokens that end an answer"
    )
    group.add_argument(
        "--use-default-chat-template",
        action="store_true",
        help="mlx-lm's option; refused where the tokenizer has no template, since transformers has no default any more",
    )


def add_generation_options(parser: argparse.ArgumentParser, leave_out: str = "", **defaults: Any) -> None:
    """Every option of GenerationOptions that has a flag, but for the group `leave_out`; `defaults` are in place of its
    own."""
    groups: dict[str, Any] = {}
    for name, flag in FLAGS.items():
        if flag.group == leave_out:
            continue
        if flag.group not in groups:
            groups[flag.group] = parser.add_argument_group(flag.group)
        default = defaults.get(name, DEFAULTS[name])
        _add_flag(groups[flag.group], name, flag, default)


def _add_flag(group: Any, name: str, flag: Flag, default: Any) -> None:
    names = [f"--{name.replace('_', '-')}"]
    if flag.short is not None:
        names.append(flag.short)
    help_text = flag.help
    if default not in (None, ()) and "default" not in help_text:
        help_text += f" (default: {default})"
    more: dict[str, Any] = {"type": _reader(flag)}
    if flag.choices:
        more["choices"] = flag.choices
    else:
        more["metavar"] = flag.metavar or name.upper()
    if flag.several:
        more["nargs"] = "+"
    group.add_argument(*names, default=default, help=help_text, **more)


def _reader(flag: Flag) -> Callable[[str], Any]:
    """What argparse reads an option's text with; with several texts it reads them one by one."""

    def read(text: str) -> Any:
        try:
            return text if flag.several else flag.parse(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} cannot be read") from None

    return read


def add_output_options(parser: argparse.ArgumentParser, verbose: str) -> None:
    """What is said besides the result; verbose: its help."""
    group = parser.add_argument_group("messages")
    group.add_argument(
        "--verbose", "-v", nargs="?", type=truth, const=True, metavar="True|False", help=f"{verbose}; False: nothing"
    )
    group.add_argument("--log-level", type=str.upper, choices=LOG_LEVELS, help="of log lines (default: WARNING)")
    group.add_argument("--version", action="version", version=__version__)


def generation_options(args: argparse.Namespace) -> GenerationOptions:
    """What `add_generation_options` was given.  Raises OptionError."""
    given = vars(args)
    return GenerationOptions(**{name: given[name] for name in FLAGS if name in given})


def load_pair(args: argparse.Namespace, need_drafter: bool = False) -> Pair:
    """The pair of `add_model_options` and `add_template_options`; a line says what is used without a drafter.

    Plain decoding works for every model, so method 'ar' loads no drafter unless one is named or needed.
    """
    draft: str | bool | None = args.draft_model
    if args.method == "ar" and not need_drafter and draft is None:
        draft = False
    pair = load(
        args.model,
        draft,
        pipeline=args.pipeline,
        revision=args.revision,
        draft_revision=args.draft_revision,
        adapter_path=args.adapter_path,
        trust_remote_code=args.trust_remote_code,
        kernels=args.kernels,
        draft_window=args.draft_window,
    )
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


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a positive number")
    return number


def truth(text: str) -> bool:
    """True or False as mlx-lm writes them, for argparse."""
    words = {"true": True, "t": True, "false": False, "f": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return words[text.lower()]


def json_object(text: str) -> dict[str, Any]:
    """A JSON object such as {"enable_thinking": false}, for argparse."""
    try:
        return read_json(text, name="it")
    except MlxDdtreeError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
