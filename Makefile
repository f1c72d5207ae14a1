# `make test` and `make demo` do everything from nothing; both are safe to repeat.
.PHONY: build test demo bench sanitize cuda-check cuda-test format lint clean
CXX_FILES = $(shell git ls-files --cached --others --exclude-standard '*.h' '*.cpp' '*.cu' '*.cuh')
PYTHON_FILES = genie_cpp tests scripts notebooks benchmarks

build:
	@bash scripts/build.sh

test: build
	build/tests/cpp/genie_tests --gtest_brief=1
	.venv/bin/python -m pytest

demo: build
	.venv/bin/genie-cpp demo --out runs/demo

# Ours beside plain PyTorch and the bare matrix products (docs/performance.md); BENCH="--rows ops --quick"
bench: build
	.venv/bin/genie-cpp bench $(BENCH)

# Damaged and foreign files under AddressSanitizer and UBSan; torch itself is not instrumented.
sanitize: build
	cmake -S . -B build/sanitize -G Ninja --log-level=WARNING -DCMAKE_BUILD_TYPE=Debug \
	  -DPython_EXECUTABLE=$(CURDIR)/.venv/bin/python -DGENIE_BUILD_TESTS=ON -DGENIE_WERROR=ON -DGENIE_SANITIZE=ON
	cmake --build build/sanitize --target genie_file_tests
	build/sanitize/tests/cpp/genie_file_tests

# The CUDA sources, compiled and linked; nothing of them is run.
cuda-check: build
	@bash scripts/check_cuda.sh

# On a machine with a GPU: all that has to pass there before a CUDA kernel may be on by default.
cuda-test: build
	@bash scripts/test_cuda.sh

format: build
	.venv/bin/clang-format -i $(CXX_FILES)
	.venv/bin/ruff format $(PYTHON_FILES)
	.venv/bin/ruff check --fix $(PYTHON_FILES)

lint: build
	.venv/bin/clang-format --dry-run -Werror $(CXX_FILES)
	.venv/bin/ruff check $(PYTHON_FILES)
	.venv/bin/ruff format --check $(PYTHON_FILES)
	.venv/bin/mypy

clean:
	rm -rf build dist .venv/.genie_build
