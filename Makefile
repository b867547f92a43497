# The front door. Each target installs what it needs (tools/setup.sh, Debian) and then calls the CMake presets.

PREFIX ?= /usr/local
FUZZ_SECONDS ?= 30
# CMake takes its compiler launcher from the environment.
export CMAKE_CXX_COMPILER_LAUNCHER ?= $(shell command -v ccache)
ifeq ($(CMAKE_CXX_COMPILER_LAUNCHER),)
unexport CMAKE_CXX_COMPILER_LAUNCHER
endif

.PHONY: all demo test check bench fuzz install clean help

all: ## build/release/nibble, the program (the default)
	@tools/setup.sh build test
	@cmake --preset release
	@cmake --build build/release --target nibble_cli
	@echo "built build/release/nibble; next: make demo"

demo: all ## quantize a real model of 135 M parameters, show what it costs (downloads 93 MB once)
	@tools/setup.sh demo
	@tools/demo.sh

test: ## build everything and run the tests (without those labelled slow)
	@tools/setup.sh build test
	@cmake --preset release
	@cmake --build build/release
	@python3 tools/run_tests.py build/release -LE slow

check: ## what a change must pass: format, layers, ISA symbols, size budget, tests, instruction counts, sanitizers
	@tools/setup.sh build test bench check
	@tools/check.sh

bench: ## build and run the benchmarks
	@tools/setup.sh build test bench
	@cmake --preset dev
	@cmake --build build/dev
	@set -e; for program in $$(find build/dev/bench -maxdepth 1 -type f -name 'bench_*' -executable | sort); do \
	  echo "== $$program"; $$program; done

fuzz: ## run every fuzz target for FUZZ_SECONDS (30) each
	@tools/setup.sh build fuzz
	@FUZZ_SECONDS=$(FUZZ_SECONDS) tools/fuzz.sh

install: all ## install the program to PREFIX (/usr/local)
	@cmake --install build/release --prefix $(PREFIX)

clean: ## remove build/
	@rm -rf build

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
