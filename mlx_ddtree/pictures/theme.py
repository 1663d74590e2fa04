"""Colours of everything that is drawn, for light and for dark pages.

The accents are Okabe and Ito's, which stay apart for every kind of colour vision, darkened or lightened until text in
them has a contrast of 4.5 or more with the paper.  Nothing is said by colour alone.
"""

from __future__ import annotations

LIGHT = {
    "paper": "#ffffff",
    "ink": "#1f2328",
    "quiet": "#6a6a6a",
    "accepted": "#007a5a",
    "copied": "#0068a3",
    "target": "#b34700",
}
DARK = {
    "paper": "#161b22",
    "ink": "#e6edf3",
    "quiet": "#9aa4af",
    "accepted": "#3fc99f",
    "copied": "#6cb6ff",
    "target": "#ff9e64",
}
FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"

_LIGHT_PAGES = ("body[data-jp-theme-light=true]", "body.vscode-light", "html[theme=light]", "html[data-theme=light]")
_DARK_PAGES = ("body[data-jp-theme-light=false]", "body.vscode-dark", "html[theme=dark]", "html[data-theme=dark]")
"""Where JupyterLab, VS Code, Colab and Sphinx say which theme the user has; elsewhere the browser is asked."""


def variables(scope: str) -> str:
    """Style rules that give `scope`, a CSS selector, the variables --paper, --ink and so on, as its page wants them."""
    light, dark = _declarations(LIGHT), _declarations(DARK)
    on_light = ",".join(f"{page} {scope}" for page in _LIGHT_PAGES)
    on_dark = ",".join(f"{page} {scope}" for page in _DARK_PAGES)
    return (
        f"{scope}{{{light}}}"
        f"@media (prefers-color-scheme:dark){{{scope}{{{dark}}}}}"
        f"{on_light}{{{light}}}{on_dark}{{{dark}}}"
    )


def _declarations(colors: dict[str, str]) -> str:
    return ";".join(f"--{name}:{value}" for name, value in colors.items())
