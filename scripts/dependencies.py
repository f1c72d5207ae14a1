"""Runtime dependencies of the wheel: torch is pinned to the minor version the extension was built with."""

from __future__ import annotations

import subprocess
import sys

RUNTIME = [
    "numpy",
    "h5py>=3.10",
    "typer>=0.12",
    "rich>=13",
    "matplotlib>=3.8",
    "pillow>=10",
    "av>=12",
    "pyyaml>=6",
]


def dynamic_metadata(field: str, settings: dict | None = None, project: dict | None = None) -> list[str]:
    if field != "dependencies":
        raise ValueError(f"only 'dependencies' is computed here, not {field!r}")
    probe = "import torch; print('.'.join(torch.__version__.split('+')[0].split('.')[:2]))"
    result = subprocess.run([sys.executable, "-I", "-c", probe], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(
            "genie_cpp is compiled against the torch of this environment, and there is none: "
            "install torch first (for example `pip install torch==2.13.0`), then install genie_cpp again"
        )
    return [f"torch=={result.stdout.strip()}.*", *RUNTIME]
