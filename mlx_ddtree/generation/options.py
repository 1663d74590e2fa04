"""Every option of generation: its name, type, default, range and help text, declared once.

The command line (programs/arguments.py), a chat's /set, a server's defaults and the keyword arguments of
`stream_generate` are all made of `GenerationOptions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from mlx_ddtree.budget.memory import Memory
from mlx_ddtree.budget.profile import PARITY_MODES, ParityMode
from mlx_ddtree.errors import OptionError
from mlx_ddtree.generation.flags import NONE, Flag, checked, flags_of, number_or_text, option
from mlx_ddtree.generation.names import refuse_both, refuse_unknown
from mlx_ddtree.grammar.grammar import Grammar
from mlx_ddtree.icecache.options import IceCacheOptions
from mlx_ddtree.pflash.modes import MODES, POSITIONS, THRESHOLD
from mlx_ddtree.tree.build import MAX_BUDGET

if TYPE_CHECKING:  # a command line is read without MLX: what needs it is imported where it is used
    from mlx_lm.sample_utils import LogitsProcessor
    from mlx_lm.tokenizer_utils import TokenizerWrapper

    from mlx_ddtree.decoding.plan import Auto
    from mlx_ddtree.decoding.sampler import MlxLmSampler, Sampler
    from mlx_ddtree.decoding.small_caches import KvQuantization
    from mlx_ddtree.pflash.compress import PrefillCompression

METHODS = ("ddtree", "dflash", "ar")

ANSWER = "answer"
FORM = "form of the answer (docs/grammar.md)"
SAMPLING = "sampling"
DECODING = "decoding"
CACHES = "caches (as in mlx-lm; approximate)"
PROMPTS = "long prompts (approximate: answers may change; all off by default)"
CONTEXTS = "long contexts, approximate (docs/icecache.md)"


def tree_budget(text: str) -> int | Auto:
    """'auto' or a number of nodes.  Raises ValueError."""
    return "auto" if text == "auto" else int(text)


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """How to answer; immutable, and checked when it is made.

    Options that the command line has too are explained by their flags.  The others are objects:

    sampler: takes the place of temp, top_p and so on: `make_sampler(...)`, or any of mlx-lm's.
    logits_processors: mlx-lm's; they see each tree node's own path, and come before the repetition penalty.
    compression: takes the place of the prefill_* options (pflash/compress.py).
    grammar: besides a file, a Grammar (grammar/grammar.py).
    memory: besides a file, 'process' (until it ends), or a Memory (budget/memory.py).
    kv_budget: besides a number, all of IceCacheOptions (docs/icecache.md).

    Raises OptionError for a value of a wrong type or out of range, and for options that contradict each other.
    """

    max_tokens: int = option(256, ANSWER, "exact limit of an answer; -1 is the model's context", short="-m")
    stop: Sequence[str] = option((), ANSWER, "strings that end the answer", metavar="TEXT")

    json_schema: str | None = option(
        None, FORM, "the answer is JSON of this schema, a file or a text", metavar="FILE|TEXT", reaches_out=True
    )
    regex: str | None = option(None, FORM, "the answer is what this regular expression matches", metavar="TEXT")
    grammar: str | Grammar | None = option(
        None, FORM, "the answer follows this grammar, in Lark", metavar="FILE", kind=str, reaches_out=True
    )

    temp: float = option(0.0, SAMPLING, "temperature; 0 is greedy", least=0)
    top_p: float = option(1.0, SAMPLING, "nucleus sampling", least=0, most=1)
    min_p: float = option(0.0, SAMPLING, "minimum probability, relative to the best token's", least=0, most=1)
    min_tokens_to_keep: int = option(1, SAMPLING, "tokens that min-p always keeps", least=1)
    top_k: int = option(0, SAMPLING, "sample among the k best tokens only; 0 is all", least=0)
    xtc_probability: float = option(
        0.0, SAMPLING, "how often XTC drops the most probable of the tokens above its threshold", least=0, most=1
    )
    xtc_threshold: float = option(0.1, SAMPLING, "probability of tokens that XTC may drop", least=0, most=0.5)
    seed: int | None = option(None, SAMPLING, "makes sampling repeatable, whatever the method and budget")
    repetition_penalty: float | None = option(None, SAMPLING, "mlx-lm's multiplicative penalty", above=0)
    repetition_context_size: int = option(20, SAMPLING, "tokens it looks back", least=1)
    sampler: Sampler | MlxLmSampler | None = None
    logits_processors: Sequence[LogitsProcessor] = ()

    method: str = option(
        "ddtree", DECODING, "draft trees, linear drafts, or plain decoding without drafts", choices=METHODS
    )
    tree_budget: int | Auto = option(
        "auto",
        DECODING,
        f"nodes of the draft tree, 0..{MAX_BUDGET}; auto: chosen every round from measured costs",
        metavar="N",
        kind=tree_budget,
    )
    block_size: int | None = option(
        None, DECODING, "tokens of a draft block, the bonus token included", least=2, metavar="B"
    )
    parity: ParityMode = option(
        "exact",
        DECODING,
        "near ties at temperature 0: decide them as plain decoding does, by a row of their own but without making "
        "the cache anew, or trust every row",
        choices=PARITY_MODES,
        kind=str,
    )
    memory: str | Memory | None = option(
        None, DECODING, "draft from earlier answers, which this file keeps", metavar="FILE", kind=str, reaches_out=True
    )
    prefill_step_size: int = option(2048, DECODING, "prompt tokens at a time", least=1)
    prefill_seconds: float | None = option(None, DECODING, "fewer where they would take longer", above=0, metavar="S")

    max_kv_size: int | None = option(
        None, CACHES, "tokens that a layer's cache keeps: the first four and the last ones", least=16, metavar="N"
    )
    kv_bits: int | None = option(None, CACHES, "bits of keys and values", choices=(2, 3, 4, 5, 6, 8))
    kv_group_size: int = option(64, CACHES, "values that share a scale", choices=(32, 64, 128))
    quantized_kv_start: int = option(5000, CACHES, "tokens from which on --kv-bits counts", least=0)

    prefill_compression: str = option(
        "off",
        PROMPTS,
        "drop the tokens of a long prompt that matter least; auto: above the threshold; messages: of aged messages",
        choices=MODES,
    )
    prefill_threshold: int = option(THRESHOLD, PROMPTS, "tokens", least=0, metavar="N")
    prefill_keep_ratio: float | None = option(
        None, PROMPTS, "share that is kept (default: 0.5 to 0.1, by length)", above=0, most=1, metavar="R"
    )
    prefill_scorer: str = option(
        "self",
        PROMPTS,
        "what finds out what matters: self (the target's first layers), lexical (no model), or a small model's "
        "folder or repository",
        metavar="NAME",
        reaches_out=True,
    )
    prefill_positions: str = option(
        "original", PROMPTS, "leave kept tokens at their positions, or close the gaps", choices=POSITIONS
    )
    prefill_protect: Sequence[str] = option((), PROMPTS, "texts that stay wherever they occur", metavar="TEXT")
    kv_keep_ratio: float | None = option(
        None, PROMPTS, "share of the prompt's keys and values that every head keeps", above=0, most=1, metavar="R"
    )
    compression: PrefillCompression | None = None

    kv_budget: int | str | IceCacheOptions | None = option(
        None, CONTEXTS, "context tokens that a layer reads in a round; or published", metavar="N", kind=number_or_text
    )
    kv_page_size: int = option(0, CONTEXTS, "tokens found together; 0: 4 or 8, by the budget", least=0, metavar="N")
    kv_offload: str | None = option(
        None, CONTEXTS, "keep what is in pages in a file there, not in memory", metavar="DIR", reaches_out=True
    )

    def __post_init__(self) -> None:
        for name, flag in FLAGS.items():
            value = getattr(self, name)
            if not isinstance(value, IceCacheOptions | Memory | Grammar):
                object.__setattr__(self, name, checked(name, flag, DEFAULTS[name], value))
        if self.max_tokens == 0 or self.max_tokens < -1:
            raise OptionError(f"max_tokens is {self.max_tokens}; use a positive number, or -1 for no limit")
        budget = self.tree_budget
        if budget != "auto" and not (type(budget) is int and 0 <= budget <= MAX_BUDGET):
            raise OptionError(
                f"tree budget {budget!r} is out of range: use 'auto', or 0 (no draft) to {MAX_BUDGET} nodes"
            )
        self._check_objects()
        self._check_caches()
        if self._changed(PROMPTS) - {"kv_keep_ratio"}:
            self.make_compression()
        self.make_icecache()
        self.make_grammar()

    def _check_objects(self) -> None:
        """Objects have the type they must have, and nothing is said twice."""
        if self.sampler is not None and not (callable(self.sampler) or hasattr(self.sampler, "choose")):
            raise OptionError(f"sampler is {self.sampler!r}: give make_sampler({self.sampler!r}), or temp=...")
        if isinstance(self.logits_processors, str) or not isinstance(self.logits_processors, Sequence):
            raise OptionError("logits_processors must be a list of functions; make_logits_processors(...) makes them")
        if not all(map(callable, self.logits_processors)):
            raise OptionError("logits_processors must be functions of (tokens, logits)")
        if self.compression is not None and not hasattr(self.compression, "keep_ratio"):
            raise OptionError(f"compression is {self.compression!r}: give PrefillCompression(...)")
        if self.sampler is not None:
            refuse_both("sampler", self._changed(SAMPLING) - {"repetition_penalty", "repetition_context_size"})
        if self.compression is not None:
            refuse_both("compression", self._changed(PROMPTS) - {"kv_keep_ratio"})
        if self.kv_offload is not None and self.kv_budget is None:
            raise OptionError("kv_offload puts pages away, and only kv_budget makes pages: give both")

    def _check_caches(self) -> None:
        """Only one option decides what the target's caches become."""
        if self.kv_bits is not None and self.max_kv_size is not None:
            raise OptionError("mlx-lm cannot quantise caches of limited size: give kv_bits or max_kv_size, not both")
        small = "kv_bits" if self.max_kv_size is None else "max_kv_size"
        for name in ("kv_keep_ratio", "kv_budget"):
            if getattr(self, name) is not None and getattr(self, small) is not None:
                raise OptionError(f"{name} reads plain caches, and {small} makes others: give one or the other")

    def _changed(self, group: str) -> set[str]:
        """The options of a group that are not at their defaults."""
        return {name for name, flag in FLAGS.items() if flag.group == group and getattr(self, name) != DEFAULTS[name]}

    def make_sampler(self, tokenizer: TokenizerWrapper) -> Sampler | MlxLmSampler:
        """The sampler given, or one of temp, top_p and the others.  XTC spares new lines and ends, as in mlx-lm."""
        from mlx_ddtree.decoding.sampler import make_sampler  # noqa: PLC0415  (brings MLX)

        if self.sampler is not None:
            return self.sampler
        xtc: dict[str, Any] = {}
        if self.xtc_probability > 0:
            xtc = {"xtc_probability": self.xtc_probability, "xtc_threshold": self.xtc_threshold}
            xtc["xtc_special_tokens"] = [*tokenizer.encode("\n"), *tokenizer.eos_token_ids]
        return make_sampler(
            self.temp, self.top_p, self.min_p, self.min_tokens_to_keep, self.top_k, seed=self.seed, **xtc
        )

    def make_logits_processors(self) -> list[LogitsProcessor]:
        """The processors given, and the repetition penalty."""
        from mlx_lm.sample_utils import make_logits_processors  # noqa: PLC0415  (brings MLX)

        penalties = make_logits_processors(
            repetition_penalty=self.repetition_penalty, repetition_context_size=self.repetition_context_size
        )
        return [*self.logits_processors, *penalties]

    def make_compression(self) -> PrefillCompression:
        """How long prompts are compressed; its mode is 'off' by default.  Raises OptionError."""
        from mlx_ddtree.pflash.compress import PrefillCompression  # noqa: PLC0415  (brings MLX)

        if self.compression is not None:
            return self.compression
        return PrefillCompression(
            self.prefill_compression,
            self.prefill_threshold,
            self.prefill_keep_ratio,
            self.prefill_scorer,
            self.prefill_positions,
            protect=tuple(self.prefill_protect),
        )

    def make_icecache(self) -> IceCacheOptions | None:
        """What a cache that is read in part keeps in reach; None: everything is read.  Raises OptionError."""
        return IceCacheOptions.of(self.kv_budget, self.kv_page_size, self.kv_offload)

    def make_grammar(self) -> Grammar | None:
        """The form that the answer is to have; None: any.  Raises OptionError."""
        if self.grammar is None and self.json_schema is None and self.regex is None:
            return None
        from mlx_ddtree.generation.grammars import grammar_of  # noqa: PLC0415  (brings MLX)

        return grammar_of(self.grammar, self.json_schema, self.regex)

    def make_quantization(self) -> KvQuantization | None:
        """How keys and values are quantised; None: they are not."""
        from mlx_ddtree.decoding.small_caches import KvQuantization  # noqa: PLC0415  (brings MLX)

        if self.kv_bits is None:
            return None
        return KvQuantization(self.kv_bits, self.kv_group_size, self.quantized_kv_start)

    def with_compression(self, compression: PrefillCompression) -> GenerationOptions:
        """These options with an object in place of their prefill_* ones."""
        defaults = {name: DEFAULTS[name] for name in self._changed(PROMPTS) - {"kv_keep_ratio"}}
        return replace(self, compression=compression, **defaults)

    def keywords(self) -> dict[str, Any]:
        """Keyword arguments of `stream_generate` that ask for the same; what is at its default is left out."""
        plain = self.with_compression(self.make_compression())
        return {name: value for name, value in vars(plain).items() if value != DEFAULTS[name]}

    def changed(self, **changes: Any) -> GenerationOptions:
        """These options with others in their place.  Raises OptionError, also for names that are none."""
        refuse_unknown(changes, DEFAULTS)
        return replace(self, **changes)

    def with_text(self, name: str, text: str) -> GenerationOptions:
        """One option changed, from what a user typed: 'none' where it need not be set.  Raises OptionError."""
        if name not in FLAGS:
            raise OptionError(f"there is no setting {name!r}; there are {', '.join(FLAGS)}")
        if text == NONE and DEFAULTS[name] is None:
            return self.changed(**{name: None})
        if text == NONE and FLAGS[name].several:
            return self.changed(**{name: ()})
        try:
            value = FLAGS[name].parse(text)
        except ValueError:
            raise OptionError(f"{text!r} is no value for {name}") from None
        return self.changed(**{name: value})


DEFAULTS: dict[str, Any] = {option.name: option.default for option in fields(GenerationOptions)}
FLAGS: dict[str, Flag] = flags_of(GenerationOptions)
"""The options that can be given as text."""
