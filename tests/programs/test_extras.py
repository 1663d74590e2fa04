"""How to install the extras is said once: no text promises a distribution that no index has."""

import re
import tomllib
from pathlib import Path

import pytest

from mlx_ddtree.errors import MissingExtraError, install_command

ROOT = Path(__file__).parents[2]
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "ARCHITECTURE.md"]
TEXTS += [path for folder in ("docs", "examples", "studies") for path in sorted((ROOT / folder).rglob("*.*"))]
TEXTS += sorted((ROOT / "mlx_ddtree").rglob("*.py"))
TEXTS = [path for path in TEXTS if path.suffix in (".md", ".py", ".ipynb")]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def unquoted(path):
    return path.read_text(encoding="utf-8").replace('\\"', '"')


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_texts_name_a_command_that_works_in_a_checkout(path):
    text = unquoted(path)
    assert not re.search(r"mlx[-_]ddtree\[", text)
    for extras in re.findall(r'pip install (?:-e )?"\.\[([a-z0-9,]+)\]"', text):
        assert set(extras.split(",")) <= EXTRAS.keys()


def test_readme_and_errors_share_the_command():
    assert install_command("server") in unquoted(ROOT / "README.md")
    assert install_command("server") in unquoted(ROOT / "docs" / "server.md")
    assert install_command("plots") in unquoted(ROOT / "docs" / "benchmark.md")
    assert install_command("server") in str(MissingExtraError("the server", "uvicorn", "server"))
