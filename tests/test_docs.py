"""The pages name what is there: links lead somewhere, files exist, and the index has every page."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

import mlx_ddtree
from mlx_ddtree.hub.registry import find_drafter

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "mlx_ddtree/demo/README.md"])
SOURCES = ("mlx_ddtree/", "metal/", "tests/", "studies/", "demo_pair/", "examples/", "docs/")


def name_of(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_named_exist(page):
    """In the repository, or in the package: `tree/build.py` is mlx_ddtree/tree/build.py."""
    rooms = tuple(f"{folder.name}/" for folder in (ROOT / "mlx_ddtree").iterdir() if folder.is_dir())
    for name in set(re.findall(r"(?<![\w/.-])(?:\w+/)+\w+\.(?:py|md|h|metal)\b", page.read_text())):
        if name.startswith((*SOURCES, *rooms)):
            assert (ROOT / name).exists() or (ROOT / "mlx_ddtree" / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_public_models_that_are_loaded_find_a_drafter(page):
    """A name that a page tells the reader to type, without a drafter beside it."""
    for line in page.read_text().splitlines():
        for name in re.findall(r"""(?:--model |load\(")([\w-]+/[\w.-]+)""", line):
            assert "--draft-model" in line or find_drafter(name), name


def test_installing_names_what_can_be_installed():
    """No distribution of this name can be downloaded, so its extras are those of a checkout."""
    for page in [*PAGES, *(ROOT / "examples").iterdir()]:
        if page.is_file():
            assert "mlx-ddtree[" not in page.read_text(), page.name


def test_the_index_has_every_page():
    index = (DOCS / "README.md").read_text()
    missing = [page.name for page in DOCS.glob("*.md") if page.name != "README.md" and f"]({page.name})" not in index]
    assert not missing


def test_every_public_name_is_documented():
    """In words: a page whose text is old fails in tests/studies (code/api_page.py --check)."""
    headings = re.findall(r"^### (\w+)$", (DOCS / "api.md").read_text(), re.M)
    assert sorted(headings) == sorted(mlx_ddtree.__all__)
    assert all(getattr(mlx_ddtree, name).__doc__ for name in mlx_ddtree.__all__ if name != "__version__")


def test_pictures_are_no_wider_than_a_page():
    """GitHub shrinks what is wider than 860 pixels, and the letters with it, which are 9 points where they are drawn."""
    for file in DOCS.rglob("*.svg"):
        root = ElementTree.parse(file).getroot()
        width = root.get("width") or root.get("viewBox").split()[2]
        pixels = float(width.removesuffix("pt")) * (4 / 3 if width.endswith("pt") else 1)
        assert pixels <= 860 or file.parent.name == "terminal", file.name
