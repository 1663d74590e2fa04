"""The kernels of metal/: their text, and launching them.

A kernel is metal/<name>.metal: `#include "..."` lines for the device functions it needs, then the body that
mx.fast.metal_kernel takes, most often one call.  MLX writes the signature.  Rules that follow from how it does:

- Inputs of fewer than 8 elements become `constant` pointers, others `device` pointers.  So numbers that change
  from launch to launch come as one int32 vector of at most 7; every other input has at least 8 elements (`at_least_8`).
- MLX knows a kernel by its name: what else changes its text (`repeat`) must be in the name as well.
- Template values are compiled for: types, head sizes, tile sizes, never a length.  They stand at the top of the body as
  names, and in the kernel's own name: where MLX writes a template itself, each call takes it 1.4 us longer.
- A call that comes often is settled once (`MetalKernel.settled`): what it costs the host beside MLX's own part is
  then a list of arrays.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx

_awaited: set[tuple[Any, ...]] = set()
"""Variants of kernels that this process has launched once."""
_waits = threading.local()
_INCLUDE = re.compile(r'^#include "([\w.]+)"\n', re.MULTILINE)
TemplateValue = int | bool | mx.Dtype
Template = Sequence[tuple[str, TemplateValue]]
Settled = Callable[..., list[mx.array]]
"""What inputs, arrays of known shapes and types, become."""
_TYPES = {mx.float16: "half", mx.bfloat16: "bfloat16_t", mx.float32: "float"}


def metal_folder() -> Path:
    """Where metal/ is: beside the modules in a wheel, else at the root of the repository."""
    package = Path(__file__).parents[1]
    return next(p for p in (package / "metal", package.parent / "metal") if p.is_dir())


@dataclass(frozen=True)
class MetalKernel:
    """metal/<name>.metal, for mx.fast.metal_kernel.

    contiguous: MLX copies inputs that are not row-contiguous.  Off where a kernel reads slices of a cache by
    their strides; its other inputs must then be contiguous already.
    repeat: a line of the body that has `$i` in it is there so many times, with 0, 1, ... for `$i`: one line for every
        array, in kernels that take any number of them.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    contiguous: bool = True
    repeat: int = 1

    @cached_property
    def text(self) -> tuple[str, str]:
        """(header, body), every line under its own file's name and number for the compiler's messages."""
        body, included = _repeated(_read(f"{self.name}.metal"), self.repeat), dict[str, str]()
        _collect(body, included)
        header = "".join(f'#line 1 "{name}"\n{_compact(text)}\n' for name, text in included.items())
        return header, f'#line 1 "{self.name}.metal"\n{_compact(body)}'

    @cached_property
    def variants(self) -> dict[tuple[tuple[str, TemplateValue], ...], Any]:
        """MLX's objects by template values, as far as they were asked for."""
        return {}

    def variant(self, template: Template) -> Any:
        """MLX's object for these template values; the Metal compiler runs at its first launch.

        Raises KeyError for a type that no kernel has.
        """
        key = tuple(template)
        if key not in self.variants:
            self.variants[key] = self._variant(key)
        return self.variants[key]

    def _variant(self, template: tuple[tuple[str, TemplateValue], ...]) -> Any:
        header, body = self.text
        values = [(name, _written(value)) for name, value in template]
        names = "".join(
            f"typedef {value} {name};\n" if value in _TYPES.values() else f"constexpr int {name} = {value};\n"
            for name, value in values
        )
        repeated = [str(self.repeat)] if self.repeat > 1 else []
        return mx.fast.metal_kernel(
            name="_".join(["mlx_ddtree", self.name, *repeated, *(value for _, value in values)]),
            input_names=list(self.inputs),
            output_names=list(self.outputs),
            source=names + body,
            header=header,
            ensure_row_contiguous=self.contiguous,
        )


class Launch(Protocol):
    """How a kernel is run: by Metal, or by the tests' harness on the host."""

    def __call__(
        self,
        kernel: MetalKernel,
        inputs: Sequence[mx.array],
        *,
        template: Template,
        grid: tuple[int, int, int],
        threadgroup: tuple[int, int, int],
        output_shapes: Sequence[tuple[int, ...]],
        output_dtypes: Sequence[mx.Dtype],
        init_value: float | None = None,
    ) -> list[mx.array]:
        """Outputs in the kernel's order.  grid is in threads; outputs start as init_value where it is given."""
        ...

    def __hash__(self) -> int:
        """Settled launches are known by what launches them."""
        ...


def launch_on_metal(
    kernel: MetalKernel,
    inputs: Sequence[mx.array],
    *,
    template: Template,
    grid: tuple[int, int, int],
    threadgroup: tuple[int, int, int],
    output_shapes: Sequence[tuple[int, ...]],
    output_dtypes: Sequence[mx.Dtype],
    init_value: float | None = None,
) -> list[mx.array]:
    """The launch on a Mac's GPU; lazy like every MLX operation, but for the first one of a variant in a process.

    That one is waited for, so that a text which Apple's compiler refuses, or a pipeline that grants fewer threads,
    raises here, where the caller has MLX's operations to fall back on, and not in a later evaluation of other arrays.
    """
    outputs = _launch_at_once(
        kernel,
        inputs,
        template=template,
        grid=grid,
        threadgroup=threadgroup,
        output_shapes=output_shapes,
        output_dtypes=output_dtypes,
        init_value=init_value,
    )
    variant = (kernel.name, kernel.repeat, tuple(template), threadgroup, tuple(x.dtype for x in inputs))
    if variant not in _awaited:
        note_wait()
        mx.eval(outputs)
        _awaited.add(variant)
    return outputs


def note_wait() -> None:
    """Say that something was read while a graph was made, such as the inputs of a launch that was waited for: they had
    to be there."""
    _waits.count = waits() + 1


def waits() -> int:
    """How often this thread has said so; a graph over rows that are still blank is worth nothing if the number has
    changed while it was made."""
    return getattr(_waits, "count", 0)


def _launch_at_once(
    kernel: MetalKernel, inputs: Sequence[mx.array], *, template: Template, **how: Any
) -> list[mx.array]:
    """`launch_on_metal` of a variant that was waited for."""
    outputs: list[mx.array] = kernel.variant(template)(inputs=inputs, **how)
    return outputs


def settled(launch: Launch, compute: Callable[..., list[mx.array]]) -> Settled:
    """A computation for calls that come often and differ in nothing but their inputs' content.

    compute: (launch, *inputs) to outputs, by launches of kernels and MLX's operations; the inputs are arrays.  The
        first call runs it as it is, so that `launch` waits for new variants.  Then MLX records it, and every later call
        is made from the record: half the time, and the kernels' text is there once instead of once a call.
    """
    if launch is not launch_on_metal:
        return partial(compute, launch)
    records: dict[int, Settled] = {}

    def run(*inputs: mx.array) -> list[mx.array]:
        thread = threading.get_ident()  # MLX keeps records by thread, and forgets only one thread's with their function
        record = records.get(thread)
        if record is not None:
            return record(*inputs)
        outputs = compute(launch_on_metal, *inputs)
        records[thread] = mx.compile(lambda *inputs: compute(_launch_at_once, *inputs))
        return outputs

    return run


def _written(value: TemplateValue) -> str:
    """A template value in Metal."""
    return _TYPES[value] if isinstance(value, mx.Dtype) else str(value).lower()


def at_least_8(x: mx.array) -> mx.array:
    """`x` flattened, padded with zeros to 8 elements where it has fewer, so that kernels get a `device` pointer."""
    flat = x.reshape(-1)
    return flat if flat.size >= 8 else mx.pad(flat, (0, 8 - flat.size))


def _read(name: str) -> str:
    return (metal_folder() / name).read_text(encoding="utf-8")


def _collect(text: str, included: dict[str, str]) -> None:
    """The files that `text` includes into `included`, each once, after those that it includes itself."""
    for name in _INCLUDE.findall(text):
        if name not in included:
            _collect(_read(name), included)
            included[name] = _read(name)


def _repeated(body: str, times: int) -> str:
    """Lines with `$i` written out, each into one line, so that lines keep their numbers."""
    lines = body.split("\n")
    return "\n".join(
        " ".join(x.replace("$i", str(i)) for i in range(times)) if "$i" in x and not x.startswith("//") else x
        for x in lines
    )


def _compact(text: str) -> str:
    """The text without includes, comments and indentation, its lines' numbers kept: MLX copies it at every call.

    `#pragma once` would be meaningless in one text.
    """
    code = _INCLUDE.sub("\n", text).replace("#pragma once\n", "\n")
    return "\n".join(line.partition("//")[0].strip() for line in code.split("\n"))
