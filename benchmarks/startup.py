"""What importing costs: fresh processes take turns. "plain" is `import torch`.

`import genie_cpp` loads torch only when something of it is first used; the second row loads all that
models, operations, training and sessions need, torch included."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import measure

AIM_S = 0.15  # at most so much more than torch
STATEMENTS = {
    "import genie_cpp": "import genie_cpp",
    "import all of its core": "from genie_cpp import inference, models, nn, ops, training, vision",
}


def fresh_process(statement: str) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, "-c", statement], check=True)


def rows(rounds: int) -> Iterator[measure.Row]:
    statements = {"torch": "import torch", **STATEMENTS}
    time = measure.in_turns(
        {name: fresh_process(code) for name, code in statements.items()}, rounds, warmup=0
    )
    for name in STATEMENTS:
        more = time[name] - time["torch"]
        yield measure.row(
            f"startup/{name}", "", time[name], time["torch"], None, more_s=more, aim_reached=more <= AIM_S
        )
