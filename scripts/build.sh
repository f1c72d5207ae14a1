#!/usr/bin/env bash
# From a bare checkout to .venv/bin/python with genie_cpp, genie-cpp and genie-train. Safe to repeat: a step whose
# inputs have not changed is skipped.
#
#   PYTHON       interpreter the virtual environment is made with (default: python3)
#   GENIE_TORCH  what pip installs as torch, for example torch==2.11.0 (default: an installed one is kept; else 2.13.0,
#                the CPU build where there is no NVIDIA GPU)
#   JOBS         compiler processes at a time (default: one a core, as far as 2 GB each fit into memory)
set -euo pipefail
cd "$(dirname "$0")/.."

TORCH_VERSION=2.13.0
VENV_PYTHON=.venv/bin/python

say() { printf '== %s\n' "$*"; }

# same_as_last STAMP CONTENT: whether CONTENT is what `remember STAMP CONTENT` kept.
same_as_last() { [ -f ".venv/.genie_$1" ] && [ "$(cat ".venv/.genie_$1")" = "$2" ]; }
remember() { printf '%s\n' "$2" > ".venv/.genie_$1"; }

install_system_packages() {
  command -v dpkg-query > /dev/null || return 0 # not Debian: CMake names what it lacks
  local wanted=(g++ make git pkg-config cmake ninja-build ccache libhdf5-dev libyaml-cpp-dev libcli11-dev
    nlohmann-json3-dev libgtest-dev libgmock-dev liblzf-dev zlib1g-dev chromium)
  # The system's own Python comes in parts; another one (pyenv, conda) brings them all.
  case "$(command -v "${PYTHON:-python3}" || true)" in
    '' | /usr/bin/*) wanted+=(python3 python3-venv python3-dev) ;;
  esac
  local missing=() package
  for package in "${wanted[@]}"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2> /dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" -ne 0 ]; then
    say "not root, so these system packages stay missing: ${missing[*]}"
    say "if the build fails for one of them: sudo apt-get install ${missing[*]}"
    return 0
  fi
  say "installing system packages: ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
}

make_environment() {
  [ -x "$VENV_PYTHON" ] && return 0
  say "making .venv"
  "${PYTHON:-python3}" -m venv .venv
}

pip_install() { "$VENV_PYTHON" -m pip install --disable-pip-version-check -qq "$@"; }

installed_torch() {
  "$VENV_PYTHON" -c 'import importlib.metadata as m; print(m.version("torch"))' 2> /dev/null || true
}

install_torch() {
  if [ -n "${GENIE_TORCH:-}" ]; then
    same_as_last torch "$GENIE_TORCH" && return 0
    say "installing $GENIE_TORCH"
    pip_install "$GENIE_TORCH"
    remember torch "$GENIE_TORCH"
    return 0
  fi
  [ -z "$(installed_torch)" ] || return 0
  if command -v nvidia-smi > /dev/null && nvidia-smi > /dev/null 2>&1; then
    say "installing torch $TORCH_VERSION for CUDA"
    pip_install "torch==$TORCH_VERSION"
  else
    say "installing torch $TORCH_VERSION for the CPU"
    # The default index has no "+cpu" build for Linux; PIP_EXTRA_INDEX_URL may name one that has (PyTorch's own, a mirror).
    pip_install "torch==$TORCH_VERSION+cpu" 2> /dev/null || {
      say "no CPU-only build in pip's index: taking the default one, which brings CUDA along"
      pip_install "torch==$TORCH_VERSION"
    }
  fi
}

install_python_packages() {
  local wanted
  wanted="$(cat scripts/requirements.txt)"
  # scikit-build-core uses the cmake of the system where it is new enough.
  local found
  found="$(cmake --version 2> /dev/null | sed -n 's/^cmake version //p')"
  if [ "$(printf '3.25\n%s\n' "$found" | sort -V | head -n 1)" != 3.25 ]; then wanted+=$'\ncmake>=3.25'; fi
  same_as_last packages "$wanted" && return 0
  say "installing Python packages"
  pip_install -r /dev/stdin <<< "$wanted"
  remember packages "$wanted"
}

jobs() {
  local cores memory
  cores="$(nproc 2> /dev/null || echo 2)"
  memory="$(awk '/MemTotal/ { print int($2 / 2097152) }' /proc/meminfo 2> /dev/null || echo "$cores")"
  [ "${memory:-0}" -ge 1 ] || memory=1
  echo $((cores < memory ? cores : memory))
}

# Everything the compiled part depends on.
fingerprint() {
  installed_torch
  "$VENV_PYTHON" --version
  find csrc cmake examples tests/cpp CMakeLists.txt pyproject.toml scripts/dependencies.py -type f -print0 | sort -z |
    xargs -0 sha256sum | sha256sum
}

compile() {
  local now
  now="$(fingerprint)"
  if same_as_last build "$now" && [ -x build/tests/cpp/genie_tests ] && [ -x .venv/bin/genie-train ]; then
    return 0
  fi
  say "compiling (minutes the first time, seconds after a change)"
  PATH="$PWD/.venv/bin:$PATH" CMAKE_BUILD_PARALLEL_LEVEL="${JOBS:-$(jobs)}" \
    pip_install --no-build-isolation --no-deps -e . \
    -C build-dir=build -C cmake.define.GENIE_BUILD_TESTS=ON -C cmake.define.GENIE_WERROR=ON
  remember build "$now"
}

install_system_packages
make_environment
install_torch
install_python_packages
compile
say "ready: .venv/bin/python, .venv/bin/genie-cpp, .venv/bin/genie-train"
