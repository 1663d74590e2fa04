"""A picture as a notebook shows it, and as a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlx_ddtree.pictures.interactive import interactive


@dataclass(frozen=True)
class Picture:
    """An SVG picture, light or dark as its page is.

    svg: its text.
    title: what it shows, in a line.
    hint: what stands under it in a notebook until the mouse is over something.
    """

    svg: str
    title: str
    hint: str

    def save(self, path: str | Path) -> Path:
        """Write it to an .svg file; its path."""
        path = Path(path)
        path.write_text(self.svg + "\n", encoding="utf-8")
        return path

    def __repr__(self) -> str:
        return f"Picture({self.title})"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """For notebooks: a picture that answers the mouse, the same as a plain picture, and its title."""
        return {
            "text/html": interactive(self.svg, self.title, self.hint),
            "image/svg+xml": self.svg,
            "text/plain": repr(self),
        }
