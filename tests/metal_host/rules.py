"""Rules of kernel text that are found by reading it: what clang lets pass, or what only Metal's compiler would say."""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .text import without_comments

SPACES = "device|constant|threadgroup|thread|ray_data|object_data"
# Words that Metal or its library reserves and that nothing can be named, and names that MLX's own header, which is
# put before every kernel, has taken.
KEYWORDS = set(
    "kernel vertex fragment visible mesh object intersection stitchable patch access sampler texture1d texture2d "
    "texture3d texturecube depth2d texture_buffer imageblock threadgroup_imageblock command_buffer raster_order_group "
    "half bfloat uchar ushort uint ulong size_t atomic vec packed_vec matrix array as_type select "
    "device constant thread threadgroup ray_data object_data "
    "alignas asm auto catch class delete explicit export extern friend goto mutable namespace new noexcept operator "
    "private protected public register signed static_assert template this throw try typeid union unsigned using "
    "virtual volatile wchar_t double".split()
)
MLX_NAMES = set(
    "Limits elem_to_loc elem_to_loc_2 elem_to_loc_3 elem_to_loc_1 elem_to_loc_2_nd elem_to_loc_3_nd LoopedElemToLoc "
    "ceildiv log1p WorkPerThread ConditionalType complex64_t cast_to instantiate_kernel MTL_CONST "
    "MAX_REDUCE_SPECIALIZED_DIMS REDUCE_N_READS REDUCE_N_WRITES SOFTMAX_N_READS RMS_N_READS RMS_LOOPED_LIMIT".split()
)
_NOT_TYPES = set(f"return const constexpr typename static case goto inline else {SPACES}".replace("|", " ").split())

_DECLARED = re.compile(r"([A-Za-z_]\w*|>)(\s+|\s*[*&]\s*)([A-Za-z_]\w*)\s*(?=[=;,)\[{(:])")
_DEFINITION = re.compile(r"([A-Za-z_][\w:]*)\s*\(([^(){};]*(?:\([^()]*\)[^(){};]*)*)\)\s*(?:const\s*)?(?::[^{};]*)?\{")
_CALL = re.compile(r"(?<![\w.>])([A-Za-z_]\w*)\s*(?:<[^;(){}]*>)?\s*\(")
_CONTROL = set("if for while switch return sizeof alignof static_assert decltype else do".split())


class Finding(NamedTuple):
    """One broken rule."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


class Function(NamedTuple):
    """A definition in the text."""

    name: str
    parameters: str
    body: str
    start: int  # of the parameters in the text


def functions(text: str) -> Iterator[Function]:
    """Definitions of functions, constructors and methods."""
    for match in _DEFINITION.finditer(text):
        if match[1] in _CONTROL:
            continue
        depth, end = 1, match.end()
        while depth and end < len(text):
            depth += (text[end] == "{") - (text[end] == "}")
            end += 1
        yield Function(match[1], match[2], text[match.end() : end], match.start(2))


Places = Iterator[tuple[int, str]]


def _pattern(pattern: str, message: str) -> Callable[[str], Places]:
    compiled = re.compile(pattern)

    def find(text: str) -> Places:
        for match in compiled.finditer(text):
            yield match.start(), message.format(match[0].strip())

    return find


def _names(text: str) -> Places:
    for match in _DECLARED.finditer(text):
        comparison = match[1] == ">" and text[match.end()] == "("  # a > uint(b)
        if match[1] not in _NOT_TYPES and not comparison:
            if match[3] in KEYWORDS:
                yield match.start(3), f"'{match[3]}' is a word of Metal"
            if match[3] in MLX_NAMES:
                yield match.start(3), f"'{match[3]}' is defined by MLX's header"


def _parts(parameters: str) -> Iterator[tuple[int, str]]:
    """Parameters and where they start, split at commas outside <> and ()."""
    depth = start = 0
    for i, c in enumerate(parameters + ","):
        depth += (c in "<(") - (c in ">)")
        if c == "," and depth == 0:
            yield start, parameters[start:i]
            start = i + 1


def _unqualified_pointers(text: str) -> Places:
    message = "a pointer or reference without its address space: {}"
    for function in functions(text):
        for at, parameter in _parts(function.parameters):
            if re.search(r"[*&]", parameter) and not re.search(rf"\b({SPACES})\b", parameter):
                yield function.start + at, message.format(" ".join(parameter.split()))
    local = re.compile(r"^[ \t]*((?:const\s+)?[A-Za-z_][\w:]*(?:<[^;=(){}]*>)?\s*[*&]+\s*\w+)\s*[=;]", re.MULTILINE)
    cast = re.compile(r"\((?:const\s+)?[A-Za-z_][\w:]*(?:<[^;=(){}]*>)?\s*\*\s*\)")
    for found in [*local.finditer(text), *cast.finditer(text)]:
        if not re.search(rf"\b({SPACES}|return)\b", found[0]):
            yield found.start(), message.format(found[0].strip())


def _recursion(text: str) -> Places:
    calls: dict[str, set[str]] = {}
    starts: dict[str, int] = {}
    for function in functions(text):
        starts.setdefault(function.name, function.start)
        calls.setdefault(function.name, set()).update(_CALL.findall(function.body))
    for name in calls:
        reached, todo = set(), [name]
        while todo:
            new = calls.get(todo.pop(), set()) - reached
            reached |= new
            todo += new
        if name in reached:
            yield starts[name], f"'{name}' calls itself, directly or through others (Metal has no recursion)"


def _threadgroup_declarations(text: str) -> Places:
    """Only in a kernel's body, not within its blocks: a function takes `threadgroup T*`."""
    declaration = re.compile(r"(?:^|(?<=[;{}]))\s*(threadgroup\s+(?:[^;(){}*&=\[\]]|\[[^;\]]*\])*(?:=[^;]*)?;)")
    for match in declaration.finditer(text):
        before = text[: match.start(1)]
        if before.count("{") > before.count("}"):
            yield match.start(1), f"a threadgroup declaration that is not at the top of a kernel's body: {match[1]}"
        elif "=" in match[1]:
            yield match.start(1), f"threadgroup memory cannot be initialised: {match[1]}"


RULES: tuple[Callable[[str], Places], ...] = (
    _names,
    _unqualified_pointers,
    _recursion,
    _threadgroup_declarations,
    _pattern(r"\bstd::\w*", "'{}': there is no std in Metal"),
    _pattern(r"\b(INFINITY|NAN|HUGE_VALF?|infinity\(\)|quiet_NaN\(\))", "'{}': fast mathematics may assume it away"),
    _pattern(r"\b(isnan|isinf|isfinite)\s*\(", "'{}': always false or true under fast mathematics"),
    _pattern(
        r"(?<![\w.])(\d+\.\d*|\.\d+|\d+(?=[eE][-+]?\d))([eE][-+]?\d+)?(?![\w.])", "'{}': a literal without f or h"
    ),
    _pattern(
        r"\b(goto|throw|try|catch|virtual|new|delete|dynamic_cast|typeid|double|thread_local)\b", "'{}' is not in Metal"
    ),
    _pattern(r"(?<=[=(,])\s*\[[&=]?\]\s*\(", "a lambda: not in Metal 3.1"),
    _pattern(r"#\s*include\s*<(?!metal_)", "'{}': only <metal_...> and our own headers"),
)


def text_errors(file: str, text: str) -> list[Finding]:
    """The broken rules of one file, in order of lines."""
    text = without_comments(text)
    found = {Finding(file, text.count("\n", 0, at) + 1, message) for rule in RULES for at, message in rule(text)}
    return sorted(found)
