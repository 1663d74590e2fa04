"""The model card of a converted drafter: whose it is, what it drafts for, how it is used, its licence."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.hub.names import expand_user, local_folder
from mlx_ddtree.hub.registry import find_target
from mlx_ddtree.hub.size import drafter_parameters
from mlx_ddtree.machine import __version__

TAGS = ["mlx", "dflash", "speculative-decoding"]
_LICENCE_KEYS = ("license", "license_name", "license_link")


@dataclass(frozen=True)
class DrafterCard:
    """Facts of a card.

    name: of the folder or repository to be.  source, revision: what was converted.  target: what it drafts for,
    where the caller knows.  config: its config.json.
    """

    name: str
    source: str
    revision: str | None
    target: str | None
    drafter: DFlashDrafter
    config: dict[str, Any]


def write_card(card: DrafterCard, papers: Path | None, folder: Path) -> str | None:
    """README.md and the source's licence files in `folder`.  Returns the target that the card names.

    papers: a folder with the source's README.md and LICENSE files, where it has them.
    """
    theirs = source_card(papers)
    target = card.target or find_target(card.source) or card.drafter.config.target or target_of(theirs)
    base = getattr(theirs, "base_model", None)
    if local_folder(card.source) is None:
        base = card.source
    more: dict[str, Any] = {key: getattr(theirs, key, None) for key in _LICENCE_KEYS}
    if base and card.config.get("quantization"):
        more["base_model_relation"] = "quantized"
    their_tags = getattr(theirs, "tags", None) or []
    data = ModelCardData(
        library_name="mlx",
        pipeline_tag=getattr(theirs, "pipeline_tag", None) or "text-generation",
        base_model=base,
        tags=list(dict.fromkeys([*TAGS, *their_tags])),
        **{key: value for key, value in more.items() if value},
    )
    files: list[Path] = []
    if papers is not None:
        files = [*papers.glob("LICENSE*"), *papers.glob("NOTICE*")]
    for file in files:
        shutil.copyfile(file, folder / file.name)
    licence = licence_line(theirs, [file.name for file in files])
    text = f"---\n{data.to_yaml()}\n---\n\n{body(card, target, licence)}"
    ModelCard(text, ignore_metadata_errors=False).save(folder / "README.md")
    return target


def source_card(papers: Path | None) -> ModelCardData | None:
    """What the source's README.md says of itself; None without one, or if it cannot be read."""
    if papers is None or not (papers / "README.md").is_file():
        return None
    try:
        return ModelCard.load(papers / "README.md", ignore_metadata_errors=True).data
    except Exception as error:  # YAML's own errors too
        logging.getLogger(__name__).warning("%s/README.md is no model card: %s", papers, " ".join(str(error).split()))
        return None


def target_of(theirs: ModelCardData | None) -> str | None:
    """Published drafters name their target as base model."""
    base = getattr(theirs, "base_model", None)
    if isinstance(base, list) and base:
        base = base[0]
    return base if isinstance(base, str) else None


def reference(name: str) -> str:
    """A repository as a link, a folder by its name: paths of one machine say nothing elsewhere."""
    folder = expand_user(name)
    is_folder = folder.is_dir() or folder.is_absolute() or name.startswith(".") or name.count("/") != 1
    if is_folder:
        return f"`{folder.resolve().name}` (a folder)"
    return f"[{name}](https://huggingface.co/{name})"


def licence_line(theirs: ModelCardData | None, files: list[str]) -> str:
    """A sentence about the licence: the source's, by the name that its card gives and the files that state it."""
    name = getattr(theirs, "license_name", None) or getattr(theirs, "license", None)
    if not name and not files:
        return "The source states none; ask its authors."
    where = f" ({', '.join(files)})" if files else ""
    return f"That of the source: {name}{where}."


def body(card: DrafterCard, target: str | None, licence: str) -> str:
    """The card's text below its metadata."""
    config = card.drafter.config
    quantisation = card.config.get("quantization")
    weights = f"{card.config['dtype']}"
    if quantisation:
        kept = f"; norms and small parts {weights}"
        mode = quantisation.get("mode", "affine")
        weights = f"{quantisation['bits']}-bit {mode}, groups of {quantisation['group_size']}{kept}"
    kind = "DFlash" if config.dflash2 is None else "DFlash 2"
    source = reference(card.source)
    at = f" at commit `{card.revision}`" if card.revision else ""
    taps = "by its rule" if config.target_layer_ids is None else ", ".join(map(str, config.target_layer_ids))
    target_link = reference(target) if target else "the target it was trained for"
    name = target or "TARGET"
    return dedent(f"""\
        # {card.name}

        A {kind} drafter for {target_link}, converted to MLX from {source}{at} with mlx_ddtree {__version__}.
        It is no language model of its own: it proposes tokens, its target verifies them, so answers are the target's.

        | | |
        |---|---|
        | target | {target_link}, and quantisations of it |
        | block size | {config.block_size} |
        | layers | {config.num_hidden_layers}, hidden size {config.hidden_size} |
        | taps target layers | {taps} |
        | parameters | {drafter_parameters(card.drafter) / 1e6:,.1f} M |
        | weights | {weights} |

        ## Use it

        With mlx_ddtree installed (`pip install .` in a checkout of it):

        ```sh
        mlx_ddtree.generate --model {name} --draft-model {card.name} --prompt "Explain quicksort."
        ```

        ```python
        from mlx_ddtree import generate, load

        pair = load("{name}", "{card.name}")
        print(generate(pair, [{{"role": "user", "content": "Explain quicksort."}}], max_tokens=512))
        ```

        ## Licence

        {licence}
        """)
