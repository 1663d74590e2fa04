"""A folder's own Python code runs where the user trusts it and nowhere else; the refusal says which option that is."""

import json
import os
import shutil

import pytest

from mlx_ddtree import generate, load
from mlx_ddtree.errors import ConfigError
from mlx_ddtree.hub.names import DEMO
from mlx_ddtree.programs.generate import main

TOKENIZER_CODE = """
import os
from pathlib import Path
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

os.environ["FOREIGN_CODE_RAN"] = "tokenizer"


class OwnTokenizer(PreTrainedTokenizerFast):
    def __init__(self, **options):
        words = Path(options["name_or_path"]) / "vocab_words.json"
        super().__init__(tokenizer_object=Tokenizer.from_file(str(words)), **options)
"""
MODEL_CODE = """
import os
from mlx_lm.models.qwen3 import *

os.environ["FOREIGN_CODE_RAN"] = "model"
"""


@pytest.fixture(params=["tokenizer", "model"])
def folder(request, tmp_path, monkeypatch):
    """The embedded target, with a tokenizer or a model that only its own code can make."""
    monkeypatch.setenv("FOREIGN_CODE_RAN", "")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    target = tmp_path / "target"
    shutil.copytree(DEMO / "target", target)
    name = "config.json" if request.param == "model" else "tokenizer_config.json"
    config = json.loads((target / name).read_text())
    if request.param == "model":
        config["model_file"] = "own_model.py"
        (target / "own_model.py").write_text(MODEL_CODE)
    else:
        config["tokenizer_class"] = "OwnTokenizer"
        config["auto_map"] = {"AutoTokenizer": ["tokenization_own.OwnTokenizer", None]}
        (target / "tokenization_own.py").write_text(TOKENIZER_CODE)
        (target / "tokenizer.json").rename(target / "vocab_words.json")
    (target / name).write_text(json.dumps(config))
    return target


def code_that_ran():
    return os.environ["FOREIGN_CODE_RAN"]


def test_it_is_refused_by_default(folder):
    with pytest.raises(ConfigError, match=r"code of its own.*--trust-remote-code"):
        load(str(folder), str(DEMO / "drafter"))
    assert code_that_ran() == ""


def test_it_is_refused_before_a_missing_drafter_is(folder, capsys):
    assert main(["--model", str(folder), "--prompt", "x"]) == 2
    assert "--trust-remote-code" in capsys.readouterr().err


def test_it_runs_where_it_is_trusted(folder):
    pair = load(str(folder), str(DEMO / "drafter"), trust_remote_code=True)
    assert code_that_ran() in ("tokenizer", "model")
    how = {"tree_budget": 4, "parity": "off"}
    assert generate(pair, "def f(", 8, **how) == generate(load(), "def f(", 8, **how)
