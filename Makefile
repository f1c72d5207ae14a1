# `make test` and `make demo` do everything from nothing; both are safe to repeat.
.PHONY: build test demo format lint clean
CXX_FILES = $(shell git ls-files --cached --others --exclude-standard '*.h' '*.cpp' '*.cu')
PYTHON_FILES = genie_cpp tests scripts notebooks benchmarks

build:
	@bash scripts/build.sh

test: build
	build/tests/cpp/genie_tests --gtest_brief=1
	.venv/bin/python -m pytest

demo: build
	.venv/bin/genie-cpp demo --out runs/demo

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
