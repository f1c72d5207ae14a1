#!/usr/bin/env bash
# The tests that need an NVIDIA GPU, and where compute-sanitizer is installed some of them once more under it. For a
# machine with a GPU, a CUDA build of torch in .venv (GENIE_TORCH=torch==2.11.0 make build) and nvcc.
set -euo pipefail
cd "$(dirname "$0")/.."

.venv/bin/python - << 'PYTHON'
import torch
from genie_cpp import _C

assert torch.cuda.is_available(), f"torch {torch.__version__} sees no GPU"
assert _C.cuda_kernels_compiled(), "this build has no CUDA kernels: see the first lines of CMake in `make build`"
print(f"== {torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}")
PYTHON
.venv/bin/python -m pytest -m cuda
if command -v compute-sanitizer > /dev/null; then
  for tool in memcheck racecheck synccheck; do
    printf '== compute-sanitizer --tool %s\n' "$tool"
    compute-sanitizer --tool "$tool" --error-exitcode 1 --target-processes all --launch-timeout 60 \
      .venv/bin/python -m pytest -q -m cuda tests/python/test_cuda.py -k 'same_bits and float32'
  done
else
  printf '== compute-sanitizer is not installed: not run\n'
fi
printf '== write what ran, and on what, into docs/performance.md\n'
