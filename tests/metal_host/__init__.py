"""Runs the exact text that MLX would hand to Metal on this machine's processor; see docs/metal_host.md."""

from .build import missing_compiler
from .launch import HostLaunch, Launched
from .report import CompileError, KernelError, LintError
from .text import InlineKernel

__all__ = ["CompileError", "HostLaunch", "InlineKernel", "KernelError", "Launched", "LintError", "missing_compiler"]
