"""A configuration that trains in seconds, a world to train it on, and the environment's programs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig

STEPS = 6
STACK = "{depth: 1, dim: 16, heads: 2}"
PHASE = f"{{steps: {STEPS}, batch_size: 2, warmup_steps: 2, learning_rate: 1e-3}}"
TINY = f"""
data: {{num_frames: 4, height: 16, width: 16, num_workers: 1}}
tokenizer:
  patch_size: 4
  quantizer: {{num_codes: 16, code_dim: 8}}
  encoder: {STACK}
  decoder: {STACK}
latent_action:
  patch_size: 8
  quantizer: {{num_codes: 4, code_dim: 4}}
  encoder: {STACK}
  decoder: {STACK}
dynamics: {{transformer: {STACK}}}
inference: {{steps: 2, temperature: 1}}
training:
  device: cpu
  log_every: 2
  validate_every: 3
  validation_clips: 2
  checkpoint_every: 3
  tokenizer: {PHASE}
  latent_action: {PHASE}
  dynamics: {PHASE}
"""


def program(name: str) -> str:
    found = shutil.which(name, path=sysconfig.get_path("scripts"))
    assert found is not None, f"{name} is not among the environment's programs"
    return found


def execute(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(argument) for argument in arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def genie(*arguments: object) -> subprocess.CompletedProcess[str]:
    return execute(sys.executable, "-m", "genie_cpp.cli", *arguments)
