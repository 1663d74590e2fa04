"""Which layers a drafter has, what stands on them, and which row of a block predicts which token.

The packagings are those of z-lab, DeepSpec, SpecForge (and its exports for SGLang), speculators, AngelSlim, NVIDIA,
LiquidAI, Poolside and Xiaomi; where their files leave something open, the rule is that of the code that trained them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlx_ddtree.drafter.config_keys import ConfigKeys, is_above_zero
from mlx_ddtree.drafter.config_parts import ConfidenceConfig, DFlash2Config, DominoConfig, MarkovConfig
from mlx_ddtree.errors import ConfigError

ASSISTANT = "MuseGlimmerAssistantModel"
"""Meta's: the v1 network, always bidirectional inside the block."""
DFLASH2 = "DFlash2DraftModel"
GEMMA4 = "Gemma4DSparkModel"
LAGUNA = "DFlashLagunaForCausalLM"
DFLARE = ("QwenDFlareDraftModel", "DFlareDraftModel")
DOMINO = "DominoDraftModel"
DSPARK = (
    "DSparkDraftModel",
    "Qwen3DSparkModel",
    "Qwen35DSparkModel",
    "Lfm2DSparkDraftModel",
    "DSparkSpeculator",
    GEMMA4,
)
"""Row 0 of their blocks predicts, unless the file says otherwise."""
ARCHITECTURES = (
    *("DFlashDraftModel", "DFlashModel", "DFlashSpeculator", DFLASH2, ASSISTANT),
    *(*DSPARK, DOMINO, LAGUNA, *DFLARE),
)
NO_READING = {
    "LiLiCorrDraftModel": "no public checkpoint has this layout, so no reading of it could be checked",
    "DeepseekV4ForCausalLM": "this is a whole target with a drafter inside, not a drafter",
}
"""Architectures that are known, and why there is no network of theirs here."""
MARKOV_KINDS = ("vanilla", "gated", "rnn")


class HeadKeys(ConfigKeys):
    """The keys of everything but the layers' sizes."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        names = self.typed("list", "architectures") or ARCHITECTURES
        self.architecture = str(names[0])
        self.projector = str(self.get("projector_type", default="")).lower()
        self.is_speculators = self.get("speculators_config", "speculators_model_type") is not None

    def refuse_foreign(self) -> None:
        """Architectures, keys and values for which there is no computation here."""
        if self.architecture not in ARCHITECTURES:
            why = NO_READING.get(self.architecture, f"known: {', '.join(ARCHITECTURES)}")
            raise ConfigError(f"drafter architecture {self.architecture!r} is not supported; {why}")
        self.refuse_unknown(self.architecture)
        if self.projector not in ("", "dflash", "dspark", "domino"):
            self.refuse_value("projector_type", "dflash, dspark and domino are")
        if self.get("use_aux_hidden_state", default=True) is not True:
            self.refuse_value("use_aux_hidden_state", "a drafter without the target's features is none of this kind")

    def layers(self) -> str:
        """The name of the drafter's layers in make.LAYERS."""
        if self.architecture in DFLARE:
            return "dflare"
        if self.get("enable_qwen35_gated_q_proj"):
            return "qwen3_5"
        if self.get("attention_sink_bias") or self.get("attention_value_scale", default=1.0) != 1.0:
            return "sinks"
        return {GEMMA4: "gemma4", LAGUNA: "laguna"}.get(self.architecture, "dflash")

    def is_dspark(self) -> bool:
        """Whether the drafter was trained as DSpark's are: by its architecture, or by a head that only they have."""
        return self.architecture in DSPARK or self.projector == "dspark" or self.markov_rank() > 0

    def markov_rank(self) -> int:
        """0 without a Markov head."""
        for key in ("markov_rank", "dspark_markov_rank"):
            if self.get(key) is not None:
                return self.integer(key)
        unsaid = self.architecture == "DSparkSpeculator" or self.get("speculators_model_type") == "dspark"
        return 256 if unsaid else 0  # speculators' default

    def markov(self) -> MarkovConfig | None:
        rank = self.markov_rank()
        if rank == 0:
            return None
        kind = str(self.get("markov_head_type", default="vanilla")).lower()
        if kind not in MARKOV_KINDS:
            self.refuse_value("markov_head_type", f"{', '.join(MARKOV_KINDS)} are")
        if self.get("dspark_fixup_head_type", default="markov") != "markov":
            self.refuse_value("dspark_fixup_head_type", "markov is")
        return MarkovConfig(kind, rank)

    def confidence(self) -> ConfidenceConfig | None:
        if not self.flag("enable_confidence_head", default=False):
            return None
        temperatures = self.typed("list", "confidence_temperatures", default=[])
        if not all(is_above_zero(value) for value in temperatures):
            raise ConfigError("drafter config.json: 'confidence_temperatures' must be numbers above 0")
        with_markov = self.flag("confidence_head_with_markov", default=self.markov_rank() > 0)
        if with_markov and self.markov_rank() == 0:
            self.refuse_value("confidence_head_with_markov", "there is no Markov head beside it")
        return ConfidenceConfig(with_markov, tuple(float(value) for value in temperatures))

    def domino(self) -> DominoConfig | None:
        if self.architecture != DOMINO and self.projector != "domino":
            return None
        return DominoConfig(
            self.size("gru_hidden_dim"), self.size("emb_dim"), self.integer("pure_draft_prefix_len", default=0)
        )

    def dflash2(self, hidden_size: int) -> DFlash2Config | None:
        """The four sizes: all of them in a DFlash 2 drafter, none in another."""
        keys = ("conv_kernel_size", "conv_group_size", "selector_rank", "selector_top_k")
        if self.architecture != DFLASH2:
            for key in keys:
                if self.get(key):
                    raise ConfigError(f"drafter config.json: {key!r} belongs to {DFLASH2}, not {self.architecture}")
            return None
        known = self.size("selector_vocab_size", default=self.size("vocab_size"))
        shape = DFlash2Config(
            **{key: self.size(key) for key in keys},
            selector_vocab_size=known if known < self.size("vocab_size") else None,
        )
        if hidden_size % shape.conv_group_size:
            raise ConfigError(
                f"drafter config.json: 'conv_group_size' {shape.conv_group_size} does not divide {hidden_size} channels"
            )
        if shape.selector_top_k > known:
            raise ConfigError(f"drafter config.json: 'selector_top_k' {shape.selector_top_k} exceeds the vocabulary")
        return shape

    def log_snr(self) -> tuple[float, float] | None:
        """The noise levels of masks and of the root, where the drafter is told them (Bonsai's)."""
        if not self.flag("log_snr_conditioning", default=False):
            return None
        least, most = self.typed("number", "min_log_snr"), self.typed("number", "max_log_snr")
        if least is None or most is None or not least < most:
            raise ConfigError("drafter config.json: 'min_log_snr' must be given, and be below 'max_log_snr'")
        return float(least), float(most)

    def rows(self) -> int:
        """Rows of a block: the root's and the masks'."""
        default = 16
        if self.architecture == DFLASH2 or self.is_speculators or self.get("num_aux_layers") is not None:
            default = 8  # NVIDIA's card says 7 drafts, its file nothing
        return self.integer("block_size", default, least=1)

    def logits_start(self) -> int:
        """Which row predicts the first token behind the root: the root's own (0), or the first mask's (1)."""
        start = self._said_start()
        if start == 1 and self.rows() < 2:
            raise ConfigError(
                f"drafter config.json: 'block_size' is {self.rows()}; a block holds the bonus token and a draft"
            )
        return start

    def _said_start(self) -> int:
        if self.is_speculators and (proposals := self._speculative_tokens()) in (self.rows(), self.rows() - 1):
            return self.rows() - proposals
        if self.get("sample_from_anchor") is not None:
            return 0 if self.flag("sample_from_anchor") else 1
        if self.get("dspark_bonus_anchor") is not None:
            return 1 if self.flag("dspark_bonus_anchor") else 0
        if self.domino() is not None:
            return 0 if self.flag("shift_label", default=False) else 1
        return 0 if self.is_dspark() and not self.is_speculators else 1

    def _speculative_tokens(self) -> int:
        """What speculators' files say of the tokens that a block proposes; -1 where they say nothing."""
        methods = self.typed("object", "speculators_config", default={}).get("proposal_methods")
        method = methods[0] if isinstance(methods, list) and methods else None
        count = method.get("speculative_tokens") if isinstance(method, Mapping) else None
        return count if isinstance(count, int) else -1

    def target(self) -> str | None:
        """The repository of the target that the drafter was trained for, where the file has it."""
        verifier = self.typed("object", "speculators_config", default={}).get("verifier")
        name = verifier.get("name_or_path") if isinstance(verifier, Mapping) else None
        return name if isinstance(name, str) and name else None
