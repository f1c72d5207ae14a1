#!/usr/bin/env bash
# Compiles the CUDA sources against a CUDA build of torch and links them, without a GPU and without changing .venv:
# nothing here is run. A torch of its own lies in build/cuda_check (0.5 GB, one download).
#
#   JOBS              compilers at a time (default: 2)
#   GENIE_CUDA_CHECK  skip: don't, where there is no nvcc and none is wanted
set -euo pipefail
cd "$(dirname "$0")/.."

TORCH_VERSION=2.11.0
FOLDER=build/cuda_check
TORCH="$PWD/$FOLDER/site/torch"

say() { printf '== %s\n' "$*"; }
fail() {
  printf 'check_cuda: %s\n' "$*" >&2
  exit 1
}

# Headers and libraries alone of torch's wheel, which holds all that its CUDA sources need.
install_torch() {
  if [ "$(cat "$FOLDER/version" 2> /dev/null)" = "$TORCH_VERSION" ]; then return 0; fi
  say "downloading torch $TORCH_VERSION with CUDA"
  rm -rf "$FOLDER/site" "$FOLDER/wheel"
  .venv/bin/python -m pip download --disable-pip-version-check -qq --no-deps --dest "$FOLDER/wheel" "torch==$TORCH_VERSION"
  .venv/bin/python - "$FOLDER"/wheel/torch-*.whl "$FOLDER/site" << 'PYTHON'
import sys, zipfile

with zipfile.ZipFile(sys.argv[1]) as wheel:
    parts = ("torch/include/", "torch/lib/libtorch", "torch/lib/libc10")
    wheel.extractall(sys.argv[2], [name for name in wheel.namelist() if name.startswith(parts)])
PYTHON
  rm -r "$FOLDER/wheel"
  [ -e "$TORCH/lib/libtorch_cuda.so" ] || fail "pip's index gave a torch $TORCH_VERSION without CUDA"
  printf '%s\n' "$TORCH_VERSION" > "$FOLDER/version"
}

# Those a CUDA build of the library has beyond a CPU build, and what they need of the ops' common part.
sources() {
  find csrc/genie/ops -name '*.cu' -printf '%s %p\n' | sort -rn | cut -d' ' -f2 # the longest first
  find csrc/genie/ops -name '*.cpp' -not -name '*_cpu.cpp' -not -name '*_vec.cpp' \
    -not -path '*/past_attention/*' -not -path '*/sequence_attention/*' | sort
  printf '%s\n' csrc/genie/training/recording.cpp csrc/genie/training/recording_cuda.cpp
}

object_of() { printf '%s/objects/%s.o' "$FOLDER" "${1//\//_}"; }

compile() {
  local source="$1" flags=()
  local common=(-D_GLIBCXX_USE_CXX11_ABI=1 -DUSE_DISTRIBUTED -Icsrc -isystem "$TORCH/include"
    -isystem "$TORCH/include/torch/csrc/api/include" -c "$source" -o "$(object_of "$source")")
  case "$source" in
    *.cu)
      mapfile -t flags < <(grep '^-' cmake/nvcc_flags.txt)
      $CCACHE nvcc "${flags[@]}" -Xcompiler=-fPIC "${common[@]}"
      ;;
    *)
      $CCACHE "${CXX:-g++}" -std=c++20 -O1 -Wall -Wextra -Werror -fPIC -isystem "$CUDA/include" "${common[@]}"
      ;;
  esac || fail "$source does not compile"
}

if ! command -v nvcc > /dev/null; then
  [ "${GENIE_CUDA_CHECK:-}" = skip ] || fail "there is no nvcc; install the CUDA toolkit, or set GENIE_CUDA_CHECK=skip"
  say "CUDA sources not checked: there is no nvcc (GENIE_CUDA_CHECK=skip)"
  exit 0
fi
mkdir -p "$FOLDER/objects"
install_torch
CUDA="$(nvcc --dryrun -c -x cu /dev/null 2>&1 | sed -n 's/^#\$ TOP=//p')"
CCACHE="$(command -v ccache || true)"
export TORCH CUDA CCACHE FOLDER CCACHE_BASEDIR="$PWD" CCACHE_NOHASHDIR=1
export -f compile object_of fail
say "compiling the CUDA sources"
sources | xargs -P "${JOBS:-2}" -I{} bash -c 'compile {}'
say "linking them, undefined symbols refused"
mapfile -t objects < <(sources | while read -r source; do object_of "$source"; echo; done)
"${CXX:-g++}" -shared -o "$FOLDER/libgenie_cuda.so" "${objects[@]}" -Wl,--no-undefined \
  -Wl,--unresolved-symbols=ignore-in-shared-libs -L"$TORCH/lib" -ltorch_cuda -ltorch_cpu -lc10_cuda -lc10 \
  -L"$CUDA/lib64" -L"$CUDA/lib" -lcudart
say "the CUDA sources compile and link against torch $TORCH_VERSION; none of their kernels was run here"
