"""What the harness finds, with the kernel's file and line."""

import re
import subprocess
from pathlib import Path

SHIM = Path(__file__).parent / "shim"
RUNTIME = Path(__file__).parent / "runtime"
_FRAME = re.compile(r"((?:/|\b)[\w./+-]+\.\w+):(\d+)")


class KernelError(RuntimeError):
    """A kernel broke a rule while it ran; the message says which, where, and by which thread."""


class LintError(KernelError):
    """The kernel's text breaks a rule of Metal that C++ does not have; the message holds clang's errors."""


class CompileError(KernelError):
    """The kernel's text does not compile; the message holds the compiler's errors."""


def in_kernel(file: str) -> bool:
    """Whether a file of the debug information is the kernel's text rather than the harness's."""
    return not file.startswith(("/usr", str(SHIM), str(RUNTIME), "glue", "?"))


def place_of(binary: Path, address: int, symbolizer: list[str]) -> str:
    """file:line of an address; the innermost frame that is the kernel's own text, for functions inlined there."""
    command = [*symbolizer, "-e", str(binary), "-i", hex(address)]
    frames = _FRAME.findall(subprocess.run(command, capture_output=True, text=True).stdout)
    names = [f"{Path(file).name}:{line}" for file, line in frames]
    own = [name for (file, _), name in zip(frames, names, strict=True) if "/shim/" not in file]
    return (own or names or ["an unknown place"])[0]


def with_places(report: str, binary: Path, symbolizer: list[str]) -> str:
    """The report with every @pc address as file:line."""
    return re.sub(r"@pc([0-9a-f]+)", lambda m: place_of(binary, int(m[1], 16), symbolizer), report)


def of_sanitizer(output: str) -> str:
    """AddressSanitizer's or UndefinedBehaviorSanitizer's finding and the first line of the kernel in its stack."""
    what = re.search(r"runtime error: .*|ERROR: AddressSanitizer: [\w-]+.*", output)
    if not what:
        return output.strip()[:3000]
    at = [
        (f, n) for f, n in re.findall(r"([\w./+-]+\.(?:h|metal)):(\d+)", output) if in_kernel(f) and "/shim/" not in f
    ]
    place = f", {Path(at[0][0]).name}:{at[0][1]}" if at else ""
    return f"{what[0]}{place}\n{output.strip()[:3000]}"
