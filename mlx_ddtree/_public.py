"""The public names, which the package takes from here when the first of them is used."""

from mlx_ddtree.benchmarking.compare import Comparison, compare
from mlx_ddtree.benchmarking.from_python import BenchmarkResult, benchmark
from mlx_ddtree.decoding.context import make_prompt_cache
from mlx_ddtree.decoding.sampler import make_sampler
from mlx_ddtree.distributed.load import load
from mlx_ddtree.errors import (
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
from mlx_ddtree.generation.asynchronous import asynchronous
from mlx_ddtree.generation.branches import stream_branches
from mlx_ddtree.generation.draw import draw_tree
from mlx_ddtree.generation.options import GenerationOptions
from mlx_ddtree.generation.response import GenerationResponse
from mlx_ddtree.generation.session import Session
from mlx_ddtree.generation.stream import generate, stream_generate
from mlx_ddtree.generation.watch import Answer, watch
from mlx_ddtree.grammar.grammar import Grammar
from mlx_ddtree.pair import Pair

sharded_load = load
"""mlx-lm's name for loading under mlx.launch, which `load` does by itself."""
