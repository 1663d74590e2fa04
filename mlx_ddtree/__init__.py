"""Faster answers from language models on a Mac, with the same words: DFlash drafts, DDTree trees.

>>> from mlx_ddtree import load, generate
>>> pair = load()                                  # the embedded pair, offline
>>> generate(pair, [{"role": "user", "content": "Write a function that adds two numbers."}])
"""

from mlx_ddtree._blas import use_fast_blas
from mlx_ddtree._home import use_some_home

use_some_home()  # before anything imports huggingface_hub
blas = use_fast_blas()  # before anything imports mlx.core

from mlx_ddtree.decoding.context import make_prompt_cache  # noqa: E402
from mlx_ddtree.decoding.sampling import make_sampler  # noqa: E402
from mlx_ddtree.distributed.load import load  # noqa: E402
from mlx_ddtree.errors import (  # noqa: E402
    ConfigError,
    MissingExtraError,
    MlxDdtreeError,
    OptionError,
    PairError,
    PromptError,
    RankError,
    UnsupportedModelError,
    WeightsError,
)
from mlx_ddtree.generation.branches import stream_branches  # noqa: E402
from mlx_ddtree.generation.draw import draw_tree  # noqa: E402
from mlx_ddtree.generation.options import GenerationOptions  # noqa: E402
from mlx_ddtree.generation.response import GenerationResponse  # noqa: E402
from mlx_ddtree.generation.session import Session  # noqa: E402
from mlx_ddtree.generation.stream import generate, stream_generate  # noqa: E402
from mlx_ddtree.grammar.grammar import Grammar  # noqa: E402
from mlx_ddtree.machine import __version__  # noqa: E402
from mlx_ddtree.pair import Pair  # noqa: E402

sharded_load = load
"""mlx-lm's name for loading under mlx.launch, which `load` does by itself."""

__all__ = [
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
    "draw_tree",
    "generate",
    "load",
    "make_prompt_cache",
    "make_sampler",
    "sharded_load",
    "stream_branches",
    "stream_generate",
]
