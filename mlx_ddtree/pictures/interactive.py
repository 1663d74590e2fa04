"""Make a picture answer the mouse and the keyboard, in a notebook, with nothing to install or load."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from uuid import uuid4

from mlx_ddtree.pictures.theme import FONT

_STYLE = """#ID{position:relative;max-width:100%;overflow-x:auto}
#ID svg,#ID img{display:block;max-width:100%;height:auto}
#ID .said{min-height:2.6em;padding:.3em 8px;font:12px/1.3 FONT}
#ID g[data-box]{cursor:pointer;outline:none}
#ID g.lit rect{stroke-width:3.5}
#ID path.lit{stroke-width:5}
#ID svg.asked g[data-box]:not(.lit),#ID svg.asked path[data-to]:not(.lit){opacity:.45}"""

_SCRIPT = """(function(){
const home=document.getElementById("ID"),picture=home.querySelector("img"),said=home.querySelector(".said");
const bytes=Uint8Array.from(atob(picture.src.split(",")[1]),c=>c.charCodeAt(0));
const holder=document.createElement("div");
holder.innerHTML=new TextDecoder().decode(bytes);
picture.replaceWith(holder);
const svg=holder.querySelector("svg"),boxes=[...svg.querySelectorAll("g[data-box]")],hint=said.textContent;
for(const box of boxes){
 const title=box.querySelector("title");
 box.dataset.about=title.textContent;title.remove();
 box.setAttribute("tabindex","0");box.setAttribute("aria-label",box.dataset.about);
 for(const event of ["mouseenter","focus","click"])box.addEventListener(event,()=>show(box));
 for(const event of ["mouseleave","blur"])box.addEventListener(event,()=>show(null));
}
function show(box){
 svg.classList.toggle("asked",Boolean(box));
 for(const lit of svg.querySelectorAll(".lit"))lit.classList.remove("lit");
 said.textContent=box?box.dataset.about:hint;
 for(let at=box&&box.dataset.box;at&&at!=="-1";){
  const same=boxes.filter(other=>other.dataset.box===at);
  for(const one of [...same,...svg.querySelectorAll('path[data-to="'+at+'"]')])one.classList.add("lit");
  at=same[0].dataset.parent;
 }
}
})()"""


def interactive(svg: str, title: str, hint: str) -> str:
    """HTML that shows a picture, and says below it what the part under the mouse is about: the <title> of its group.

    svg: its parts are <g data-box="number" data-parent="number or -1">, the lines to them <path data-to="number">; with
        a part all those that it comes from are lit.
    hint: what is said while the mouse is elsewhere.

    The picture comes as an image, which the script replaces by its elements.  Where scripts or styles are taken out
    (GitHub, notebooks that are not trusted) the image stays.
    """
    name = f"ddtree-{uuid4().hex[:12]}"
    source = b64encode(svg.encode("utf-8")).decode()
    style = _STYLE.replace("ID", name).replace("FONT", FONT)
    script = _SCRIPT.replace("ID", name)
    picture = f'<img alt="{escape(title)}" src="data:image/svg+xml;base64,{source}">'
    said = f'<div class="said">{escape(hint)}</div>'
    return f'<style>{style}</style><div id="{name}">{picture}{said}</div><script>{script}</script>'
