"""The command line's options that several programs share; those of generation are made from GenerationOptions.

Nothing here needs MLX: what is wrong with a command line, and its help, are said at once.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from typing import Any

from mlx_ddtree._version import __version__
from mlx_ddtree.errors import MlxDdtreeError
from mlx_ddtree.generation.flags import Flag
from mlx_ddtree.generation.options import DEFAULTS, FLAGS, GenerationOptions
from mlx_ddtree.untrusted import read_json

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def add_model_names(group: argparse._ArgumentGroup) -> None:
    """Which target and drafter, by name."""
    group.add_argument("--model", help="target: local folder or Hugging Face repository (default: the embedded pair)")
    group.add_argument("--draft-model", help="drafter: folder or repository (default: looked up for public targets)")
    group.add_argument("--revision", help="branch, tag or commit of --model")
    group.add_argument("--draft-revision", help="branch, tag or commit of --draft-model")


def add_model_options(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """Which target and drafter, and how they are loaded; several: perhaps on several machines."""
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
    if several:
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
    add_template_arguments(group)


def add_template_arguments(group: argparse._ActionsContainer, default: Mapping[str, Any] | None = None) -> None:
    """Further arguments of the chat template; mlx_lm.server and mlx_lm.generate have a name for them each."""
    value = dict(default or {})
    group.add_argument(
        "--chat-template-args",
        "--chat-template-config",
        type=json_object,
        default=value,
        metavar="JSON",
        help=f"arguments of the chat template (default: {json.dumps(value)})",
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
    add_version(group)


def add_version(group: argparse._ActionsContainer) -> None:
    """--version, which every program has."""
    group.add_argument("--version", action="version", version=__version__)


def add_json(group: argparse._ActionsContainer, more: str = "") -> None:
    """--json, for programs whose result has a form for other programs; more: the end of its help."""
    group.add_argument("--json", action="store_true", help=f"print the result as one JSON object{more}")


def generation_options(args: argparse.Namespace) -> GenerationOptions:
    """What `add_generation_options` was given.  Raises OptionError."""
    given = vars(args)
    return GenerationOptions(**{name: given[name] for name in FLAGS if name in given})


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
