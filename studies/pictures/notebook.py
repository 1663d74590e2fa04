"""Photograph the tour notebook as it is kept, light and dark: docs/notebook-light.png and docs/notebook-dark.png.

Usage: python studies/pictures/notebook.py [--run] [--cells 3 7 14 17] [--output docs]      (needs Chromium and Pillow)

--run executes the notebook first, and keeps it with its outputs: on an idle machine, because it shows speeds.

Cells are laid out by a page of this program's own, with the styles that notebooks have; what is in them is the notebook's.
"""

import argparse
import shutil
import subprocess
import tempfile
from html import escape
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image, ImageChops

NOTEBOOK = Path(__file__).parents[2] / "examples" / "tour.ipynb"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HIGHEST, MARGIN = 900, 4000, 12
PAPER = {"light": "#ffffff", "dark": "#111111"}
STYLE = """
body{margin:12px;width:872px;font:14px/1.4 Helvetica,Arial,'DejaVu Sans',sans-serif;color:var(--ink);background:var(--page)}
pre.code{font:12.5px/1.4 ui-monospace,Menlo,'DejaVu Sans Mono',monospace;border:1px solid #8888;padding:6px 8px;margin:14px 0 6px}
table{font-size:13px}
"""


def execute():
    """Run all cells, and keep what is the same on every machine of the notebook's own data."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata["language_info"].pop("version", None)
    nbformat.write(notebook, NOTEBOOK)


def page(cells, theme):
    """HTML of a notebook's cells."""
    parts = []
    for cell in cells:
        parts.append(f'<pre class="code">{escape("".join(cell["source"]))}</pre>')
        for output in cell["outputs"]:
            data = output.get("data", {})
            plain = f"<pre>{escape(''.join(output.get('text', data.get('text/plain', ''))))}</pre>"
            parts.append("".join(data.get("text/html", "")) or plain)
    ink = "#1f2328" if theme == "light" else "#e6e6e6"
    body = f'<body data-jp-theme-light="{str(theme == "light").lower()}" style="--ink:{ink};--page:{PAPER[theme]}">'
    return f'<!doctype html><meta charset="utf-8"><style>{STYLE}</style>{body}{"".join(parts)}</body>'


def photograph(browser, html, picture):
    """The page, without what is empty below."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        file.write_text(html, encoding="utf-8")
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=2000"]
        size = [f"--window-size={WIDTH},{HIGHEST}", f"--screenshot={picture}"]
        subprocess.run([browser, *options, *size, file.as_uri()], check=True, capture_output=True)
    image = Image.open(picture).convert("RGB")
    empty = Image.new("RGB", image.size, image.getpixel((0, image.height - 1)))
    bottom = ImageChops.difference(image, empty).getbbox()[3] + MARGIN
    image.crop((0, 0, WIDTH, bottom)).save(picture, optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true", help="execute the notebook first")
    parser.add_argument("--cells", nargs="+", type=int, default=[3, 7, 14, 17], help="by their place in the notebook")
    parser.add_argument("--output", type=Path, default=Path("docs"), help="folder")
    args = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        parser.exit(2, "error: no Chromium: install it (Debian: apt-get install chromium)\n")
    if args.run:
        execute()
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    for theme in PAPER:
        picture = args.output.resolve() / f"notebook-{theme}.png"
        photograph(browser, page([cells[place] for place in args.cells], theme), picture)
        print(picture.name)


if __name__ == "__main__":
    main()
