"""What can go wrong because of what the user gave; every message names what to do."""


class MlxDdtreeError(Exception):
    """Base of all errors that this package raises on purpose."""


class ConfigError(MlxDdtreeError):
    """A model's folder, its config.json or another file of settings is missing or not understood."""


class WeightsError(MlxDdtreeError):
    """A checkpoint's tensors are missing, unexpected, misshapen or unreadable."""


class PairError(MlxDdtreeError):
    """Drafter and target do not belong together."""


class UnsupportedModelError(MlxDdtreeError):
    """The target's architecture has no tree verification here."""


class PromptError(MlxDdtreeError):
    """The prompt is empty, too long, or not of a known form."""


class OptionError(MlxDdtreeError, ValueError):
    """An option's value is out of range or options contradict each other."""


class RankError(MlxDdtreeError):
    """The ranks of a model on several machines do not find each other, or one of them cannot do its part."""
