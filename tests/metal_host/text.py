"""The Metal text of a launch, as MLX writes it, and the C++ that runs it on the host."""

import ctypes
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import mlx.core as mx

from mlx_ddtree.kernels.metal import MetalKernel, Template

_FENCE = "```"
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_INSTANTIATION = re.compile(r"\ntemplate \[\[host_name\(.*?;\n", re.DOTALL)
_SIGNATURE = re.compile(r"\[\[kernel\]\] void (\w+)\(\n(.*?)\)\s*\{", re.DOTALL)
_BUFFER = re.compile(r"\s*(.*?)([*&])\s*(\w+) \[\[buffer\((\d+)\)\]\]", re.DOTALL)
# A declaration of arrays or values; pointers and references have * or & and stay as they are.
# Within brackets anything may stand.
_DECLARATORS = r"\w(?:[^;*&(){}\[\]]|\[[^;\]]*\])*"
_THREADGROUP = re.compile(rf"\bthreadgroup\s+((?!_)[A-Za-z][\w:]*(?:<[^;{{}}()]*?>)?)\s+({_DECLARATORS});")
_DECLARATOR = re.compile(r"(\w+)\s*((?:\[[^\]]*\]\s*)*)$")

# What MLX may ask for, in terms of host::Thread.
ATTRIBUTES = {
    "thread_position_in_grid": "HOST_DIM(position_in_grid)",
    "thread_position_in_threadgroup": "HOST_DIM(position_in_threadgroup)",
    "threadgroup_position_in_grid": "HOST_DIM(threadgroup_position)",
    "threads_per_threadgroup": "HOST_DIM(threadgroup_size)",
    "dispatch_threads_per_threadgroup": "HOST_DIM(threadgroup_size)",
    "threadgroups_per_grid": "HOST_DIM(threadgroups)",
    "threads_per_grid": "HOST_DIM(grid_size)",
    "thread_index_in_threadgroup": "t.index",
    "thread_index_in_simdgroup": "t.lane",
    "simdgroup_index_in_threadgroup": "t.simdgroup",
    "simdgroups_per_threadgroup": "t.simdgroups",
    "threads_per_simdgroup": "32u",
    "thread_execution_width": "32u",
}


@dataclass(frozen=True)
class InlineKernel(MetalKernel):
    """A kernel whose text stands in a test: messages name `<name>.metal`, and `<name>.h` for the header."""

    body: str = ""
    header: str = ""

    @cached_property
    def text(self) -> tuple[str, str]:  # type: ignore[override]
        """(header, body), as of a kernel in files."""
        header = f'#line 1 "{self.name}.h"\n{self.header}\n' if self.header else ""
        return header, f'#line 1 "{self.name}.metal"\n{self.body}\n'


def capture(kernel: Any, inputs: Sequence[mx.array], *, template: Template, **launch: Any) -> str:
    """The complete text that MLX would hand to the Metal compiler.

    Within mx.export_function a kernel is recorded without being run, on machines without Metal too, and
    verbose=True prints its text on the process's standard output.
    """
    compiled = kernel.variant(template)

    def call(*arrays: mx.array) -> list[mx.array]:
        return compiled(inputs=list(arrays), verbose=True, **launch)

    sys.stdout.flush()
    libc = ctypes.CDLL(None)
    with tempfile.TemporaryFile() as file:
        kept = os.dup(1)
        os.dup2(file.fileno(), 1)
        try:
            mx.export_function(lambda _: None, call, *inputs)
        finally:
            libc.fflush(None)
            os.dup2(kept, 1)
            os.close(kept)
        file.seek(0)
        printed = file.read().decode()
    return printed[printed.index(_FENCE) + len(_FENCE) : printed.rindex(_FENCE)]


class Parameter(NamedTuple):
    """One of the signature's parameters: a buffer (index >= 0) or an attribute."""

    name: str
    type: str  # of the elements, without address space
    reference: bool
    index: int


class Signature(NamedTuple):
    """Of the kernel that MLX wrote; `instance` is its name with the template's values."""

    name: str
    instance: str
    parameters: list[Parameter]

    @property
    def buffers(self) -> list[str]:
        """Names in the order of their indices."""
        found = sorted((p.index, p.name) for p in self.parameters if p.index >= 0)
        assert [index for index, _ in found] == list(range(len(found)))
        return [name for _, name in found]


def signature(text: str) -> Signature:
    """What MLX wrote around the body."""
    found = _SIGNATURE.search(text)
    assert found, text
    instance = re.search(r"decltype\((.*?)\) ", text)
    parameters = []
    for part in found[2].split(",\n"):
        buffer = _BUFFER.match(part)
        if buffer:
            element = re.sub(r"\b(device|constant)\s", "", buffer[1])
            parameters.append(Parameter(buffer[3], element, buffer[2] == "&", int(buffer[4])))
        else:
            attribute = re.search(r"\[\[(\w+)\]\]", part)
            assert attribute, part
            parameters.append(Parameter(attribute[1], "", False, -1))
    return Signature(found[1], instance[1] if instance else found[1], parameters)


def without_instantiation(text: str) -> str:
    """Without the line by which Metal is told to instantiate the template."""
    return _INSTANTIATION.sub("\n", text)


def without_comments(text: str) -> str:
    """The text with its lines' numbers kept."""
    return _COMMENT.sub(lambda m: " " + "\n" * m[0].count("\n"), text)


def _split(declarators: str) -> list[str]:
    """At commas outside brackets."""
    depth, parts = 0, [""]
    for c in declarators:
        depth += (c in "[<") - (c in "]>")
        if c == "," and not depth:
            parts.append("")
        else:
            parts[-1] += c
    return parts


def with_threadgroup_arrays(text: str, macro: str = "HOST_THREADGROUP") -> str:
    """`threadgroup T a[n], b;` as macro(1, T, a, [n]); macro(2, T, b, );"""
    count = 0

    def rewrite(match: re.Match[str]) -> str:
        nonlocal count
        made = []
        for part in _split(match[2]):
            declarator = _DECLARATOR.match(part.strip())
            if not declarator:
                return match[0]
            count += 1
            made.append(f"{macro}({count}, ({match[1]}), {declarator[1]}, {declarator[2].strip()});")
        return " ".join(made)

    rewritten = _THREADGROUP.sub(rewrite, text)
    left = re.search(rf"\bthreadgroup\s+{_DECLARATORS};", rewritten)
    if left:
        raise ValueError(f"a threadgroup declaration the harness does not understand: {left[0]}")
    return rewritten


def source(text: str) -> str:
    """The C++ translation unit: the text, and a function that calls the kernel with one thread's arguments."""
    found = signature(text)
    arguments = [
        ATTRIBUTES[p.name] if p.index < 0 else f"{'*' if p.reference else ''}({p.type}*)buffers[{p.index}]"
        for p in found.parameters
    ]
    body = with_threadgroup_arrays(without_comments(without_instantiation(text)))
    return f"""#include <metal_stdlib>
using namespace metal;
{body}
#line 1 "glue"
#define HOST_DIM(member) uint3(t.member.x, t.member.y, t.member.z)
extern "C" __attribute__((no_sanitize("thread"))) void host_kernel(void** buffers) {{
  const host::Thread& t = host::self();
  (void)t;
  {found.instance}({", ".join(arguments)});
}}
"""
