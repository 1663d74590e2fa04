"""The compiler, and what it made before: shared objects by the hash of everything that went into them."""

import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from .report import RUNTIME, SHIM, CompileError

OLDEST = 17  # the first clang with __bf16 arithmetic

_COMMON = ["-std=c++17", "-g", "-fno-strict-aliasing", "-fno-exceptions", f"-I{SHIM}", f"-I{RUNTIME}"]
_KERNEL = [
    *_COMMON,
    *["-Wall", "-Wno-unused", "-Wno-unknown-attributes", "-Wno-psabi", "-Wdouble-promotion"],
    "-Werror=return-type",
    # 16-bit arithmetic rounds after every operation, and no multiplication and addition melt into one.
    *["-Xclang", "-ffloat16-excess-precision=none", "-Xclang", "-fbfloat16-excess-precision=none", "-ffp-contract=off"],
    "-ftrivial-auto-var-init=pattern",  # what a kernel forgot to set is NaN
    "-march=native",  # conversions to and from half are calls otherwise
]
_CHECK = [
    *["-fsanitize=thread", "-mllvm", "-tsan-instrument-atomics=0", "-mllvm", "-tsan-instrument-func-entry-exit=0"],
    # Else a read is left out where a write to the same place follows, and vectors of 32 bytes are not seen at all.
    *["-mllvm", "-tsan-instrument-read-before-write=1", "-fno-vectorize", "-fno-slp-vectorize"],
]
_ASAN = ["-fsanitize=address,undefined", "-fno-sanitize=alignment", "-fno-sanitize-recover=all"]

# Metal has no double; promotion of half to float carries the same warning and is fine.
_DOUBLE = re.compile(r"implicit conversion increases floating-point precision: .* to 'double'")

# mode: how the kernel is compiled, how the runtime, of which files it is made
MODES = {
    "fast": (["-O2", "-fPIC"], ["-O2", "-fPIC"], ["scheduler", "unwatched", "launch", "bfloat"]),
    "check": (["-O1", "-fPIC", *_CHECK], ["-O2", "-fPIC"], ["scheduler", "memory", "launch", "bfloat"]),
    "asan": (["-O1", *_ASAN], ["-O1", "-fsanitize=address"], ["scheduler", "unwatched", "main", "bfloat"]),
}


@functools.cache
def _version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout


@functools.cache
def find_compiler() -> str | None:
    """The path of a clang that is new enough, MLX_DDTREE_CLANG first."""
    names = [os.environ.get("MLX_DDTREE_CLANG"), *(f"clang++-{n}" for n in range(OLDEST, 23)), "clang++"]
    for name in names:
        path = shutil.which(name) if name else None
        if path and (found := re.search(r"clang version (\d+)", _version(path))) and int(found[1]) >= OLDEST:
            return path
    return None


def missing_compiler() -> str | None:
    """Why kernels cannot be run on this machine, for pytest's skip; None where they can."""
    if find_compiler():
        return None
    return f"no clang {OLDEST} or newer (Debian: apt-get install clang-19 libclang-rt-19-dev; or set MLX_DDTREE_CLANG)"


@functools.cache
def missing_sanitizers() -> str | None:
    """Why mode asan cannot be used on this machine, for pytest's skip; None where it can."""
    compiler = find_compiler()
    if compiler is None:
        return missing_compiler()
    try:
        cached("sanitizers", "", [compiler, *_ASAN, "@in", "-o", "@out"], "int main() { return 0; }")
    except CompileError:
        return f"{compiler} comes without its sanitizers (Debian: apt-get install libclang-rt-19-dev)"
    return None


def cache_folder() -> Path:
    """Where compiled kernels are kept: MLX_DDTREE_TEST_CACHE, else .cache in the repository."""
    default = Path(__file__).parents[2] / ".cache" / "metal_host"
    folder = Path(os.environ.get("MLX_DDTREE_TEST_CACHE") or default)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def symbolizer() -> list[str]:
    """The command that turns addresses into lines: binutils' (clang links with them), or LLVM's."""
    if shutil.which("addr2line"):
        return ["addr2line"]
    version = re.search(r"clang version (\d+)", _version(find_compiler() or "clang++"))
    return [f"llvm-symbolizer-{version[1]}" if version else "llvm-symbolizer"]


@functools.cache
def _harness_hash() -> str:
    """Of all that kernels are compiled against, and of the machine that -march=native stands for."""
    digest = hashlib.sha256(_version(find_compiler() or "").encode())
    digest.update(f"{platform.machine()} {platform.processor()} {_processor()}".encode())
    for file in sorted([*SHIM.rglob("*"), *RUNTIME.iterdir()]):
        if file.is_file():
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    flags = re.search(r"^(?:flags|Features).*", facts.read_text(), re.MULTILINE) if facts.exists() else None
    return flags[0] if flags else ""


def cached(key: object, suffix: str, make: list[str] | None = None, text: str = "") -> Path:
    """The file that `make` (a command, @out and @in for the file and for `text` as a .cpp file) makes, once a key."""
    digest = hashlib.sha256(f"{_harness_hash()} {key} {make} {text}".encode()).hexdigest()[:24]
    path = cache_folder() / f"{digest}{suffix}"
    if path.exists() or make is None:
        return path
    source = path.with_suffix(".cpp")
    if text:
        source.write_text(text)
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        out = Path(folder) / path.name
        names = {"@out": str(out), "@in": str(source)}
        done = subprocess.run([names.get(word, word) for word in make], capture_output=True, text=True)
        if done.returncode or _DOUBLE.search(done.stderr):
            raise CompileError(_errors(done.stderr))
        os.replace(out, path)  # at once, for other processes
    return path


def _errors(output: str) -> str:
    """The errors of the compiler's output, with the notes that belong to them."""
    parts = re.split(r"\n(?=\S+:\d+:\d+: |In file included)", output)
    errors = [part for part in parts if " error: " in part or " note: " in part or _DOUBLE.search(part)]
    return "\n".join(errors or [output])[:4000]


def passes(key: object, check: Callable[[], str], text: str) -> str:
    """The errors that `check` finds in `text`; where there were none, that is remembered."""
    digest = hashlib.sha256(f"{_harness_hash()} {key} {text}".encode()).hexdigest()[:24]
    stamp = cache_folder() / f"{digest}.passed"
    errors = "" if stamp.exists() else check()
    if not errors:
        stamp.touch()
    return errors


def build(source: str, mode: str) -> Path:
    """The shared object (in mode asan, the program) of one kernel's translation unit."""
    compiler = find_compiler()
    assert compiler, missing_compiler()
    kernel_flags, runtime_flags, files = MODES[mode]
    runtime = [
        cached(
            (mode, file), ".o", [compiler, *_COMMON, *runtime_flags, "-c", str(RUNTIME / f"{file}.cpp"), "-o", "@out"]
        )
        for file in files
    ]
    kernel = cached(mode, ".o", [compiler, *_KERNEL, *kernel_flags, "-c", "@in", "-o", "@out"], source)
    link = [str(kernel), *map(str, runtime), "-lm", "-lpthread", "-o", "@out"]
    if mode == "asan":
        return cached(mode, "", [compiler, "-g", *_ASAN, *link])
    return cached(mode, ".so", [compiler, "-shared", *link])
