"""Faster answers from language models on a Mac, with the same words: DFlash drafts, DDTree trees.

>>> from mlx_ddtree import load, generate
>>> pair = load()                                  # the embedded pair, offline
>>> generate(pair, [{"role": "user", "content": "Write a function that adds two numbers."}])

The public names are loaded when the first of them is used, and MLX with them: a command line is read without.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mlx_ddtree._blas import use_fast_blas
from mlx_ddtree._home import use_some_home
from mlx_ddtree._version import __version__

use_some_home()  # before anything imports huggingface_hub
blas = use_fast_blas()  # before anything imports mlx.core

if TYPE_CHECKING:
    from mlx_ddtree._public import *  # noqa: F403

__all__ = [
    "Answer",
    "BenchmarkResult",
    "Comparison",
    "ConfigError",
    "GenerationOptions",
    "GenerationResponse",
    "Grammar",
    "MissingExtraError",
    "MlxDdtreeError",
    "OptionError",
    "Pair",
    "PairError",
    "PromptError",
    "RankError",
    "Session",
    "UnsupportedModelError",
    "WeightsError",
    "__version__",
    "asynchronous",
    "benchmark",
    "compare",
    "draw_tree",
    "generate",
    "load",
    "make_prompt_cache",
    "make_sampler",
    "sharded_load",
    "stream_branches",
    "stream_generate",
    "watch",
]


def __getattr__(name: str) -> Any:
    """Load the public names (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    public = import_module("mlx_ddtree._public")
    globals().update({known: getattr(public, known) for known in __all__ if known not in globals()})
    return globals()[name]


def __dir__() -> list[str]:
    """The public names too, before they are loaded."""
    return sorted({*globals(), *__all__})
