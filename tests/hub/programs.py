"""Fresh interpreters: huggingface_hub reads its environment when it is imported."""

import os
import subprocess
import sys


def environment(home, **values):
    """Without anything of the user's; `home` is HF_HOME."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    own = {"HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return kept | own | {"HF_HUB_DISABLE_UPDATE_CHECK": "1"} | values


def run(*arguments, home, timeout=120, **values):
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment(home, **values), capture_output=True, text=True, timeout=timeout)
