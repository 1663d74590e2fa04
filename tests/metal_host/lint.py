"""Rules of Metal that a C++ compiler does not know, over kernel text.

`compile_errors` has clang read a captured text as C++ for OpenCL: address spaces, no double, no function pointers,
parameters that are not used, threadgroup arrays only at the top of the body.  rules.py is the rest, by reading.
HostLaunch asks it about every kernel of metal/ with every set of template values that it launches.
"""

import re
import subprocess
from pathlib import Path

from .build import find_compiler, passes
from .text import signature, without_comments, without_instantiation

SHIM = Path(__file__).parent / "shim_lint"

_EXTENSIONS = "-all,+cl_khr_fp16,+__opencl_c_generic_address_space"
_FLAGS = [
    *["-x", "clcpp", "-cl-std=clc++2021", "--target=x86_64-linux-gnu", "-fsyntax-only", "-cl-no-stdinc"],
    *["-Xclang", f"-cl-ext={_EXTENSIONS}", f"-I{SHIM}", "-Wall", "-Wextra"],
    *["-Wno-unknown-attributes", "-Wno-psabi", "-Wno-unused", "-Wno-sign-compare", "-Wno-undefined-internal"],
    *["-Wno-undefined-inline", "-Wno-missing-braces", "-Wno-missing-field-initializers", "-Wno-unknown-pragmas"],
    "-Werror=unused-parameter",
]
_VECTOR = re.compile(r"(?<![\w.>])((?:float|half|bfloat|bool|u?char|u?short|u?int|u?long)[234]|vec<[^<>()]*>)\s*\(")
_OPENCL_WORD = re.compile(r"\b(local|global|generic|channel|pipe|event_t|sampler_t)\b")
_TEMPLATE = re.compile(r"template <([^<>]*)>\n(?=\[\[kernel\]\])")


def opencl_source(text: str) -> str:
    """A captured text as C++ for OpenCL.

    Kernels cannot be templates there: the template's parameters become names at the top.  Nor can they take
    references or pointers to bool.
    """
    found = signature(text)
    text = without_comments(without_instantiation(text))
    template = _TEMPLATE.search(text)
    if template:
        values = found.instance[found.instance.index("<") + 1 : -1].split(", ")
        names = _named_values(template[1].split(", "), values)
        text = text[: template.start()] + names + text[template.end() :]
    start = text.index("[[kernel]] void")
    head, rest = text[:start], text[start:]
    body = rest.index("{") + 1
    parameters = rest[:body].replace("[[kernel]] void", "__kernel void")
    references = ""
    for p in found.parameters:
        if p.reference:
            parameters = re.sub(rf"&\s*{p.name} \[\[", f"* lint_{p.name} [[", parameters)
            references += f" const constant {p.type.replace('const ', '')}& {p.name} = *lint_{p.name};"
    parameters = re.sub(r"\[\[[^\]]*\]\]", "", parameters)
    parameters = re.sub(r"\bbool(?=\*)", "uchar", parameters)
    code = _VECTOR.sub(r"lint_make<\1>(", f"{head}{parameters}{references}{rest[body:]}")
    code = _OPENCL_WORD.sub(r"lint_\1", code)
    return f"#include <metal_stdlib>\nusing namespace metal;\n{code}"


def _named_values(names: list[str], values: list[str]) -> str:
    made = ""
    for parameter, value in zip(names, values, strict=True):
        kind, name = parameter.rsplit(" ", 1)
        made += f"typedef {value} {name}; " if kind == "typename" else f"constant constexpr {kind} {name} = {value}; "
    return made + "\n"


def compile_errors(text: str) -> str:
    """What clang says of a captured text as C++ for OpenCL; empty if nothing.  A text without errors is remembered."""
    command = [find_compiler() or "", *_FLAGS, "-"]
    return passes((command, *(f.read_text() for f in sorted(SHIM.iterdir()))), lambda: _compile(command, text), text)


def _compile(command: list[str], text: str) -> str:
    done = subprocess.run(command, input=opencl_source(text), capture_output=True, text=True)
    return done.stderr if done.returncode else ""
