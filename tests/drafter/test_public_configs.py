"""Public drafters' config.json files are read, or refused for a true reason, as docs/drafters.md says."""

import runpy
from pathlib import Path

import pytest

from mlx_ddtree.drafter.config import DrafterConfig
from mlx_ddtree.errors import ConfigError

ROOT = Path(__file__).parents[2]
STUDY = runpy.run_path(str(ROOT / "studies/drafters/verdicts.py"))
CONFIGS = {entry["name"]: entry["config"] for entry in STUDY["public_configs"]()}
REFUSED = {"NVIDIA ModelOpt's LiLiCorr"}


@pytest.mark.parametrize("name", CONFIGS)
def test_all_load_but_those_without_a_reading(name):
    if name not in REFUSED:
        assert DrafterConfig.from_dict(CONFIGS[name]).block_size >= 2
        return
    with pytest.raises(ConfigError, match="no public checkpoint"):
        DrafterConfig.from_dict(CONFIGS[name])


def test_the_page_has_the_table_of_this_version():
    assert STUDY["table"]() in (ROOT / "docs/drafters.md").read_text(encoding="utf-8")


def test_keys_inside_objects_are_refused_too():
    """What is not understood stands anywhere in a speculators file."""
    config = CONFIGS["RedHatAI gemma-4-31B-it-speculator.dspark"]
    layers = config["transformer_layer_config"] | {"unheard_of": 1}
    with pytest.raises(ConfigError, match="unheard_of"):
        DrafterConfig.from_dict(config | {"transformer_layer_config": layers})
