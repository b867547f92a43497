#!/usr/bin/env bash
# Everything a change must pass, cheapest first; runs all steps and ends with what failed.
#   tools/check.sh [STEP...]        default: all of them
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
steps=${*:-format layers size tests models isa counts sanitize}

check_format() {
  git ls-files -z --cached --others --exclude-standard -- '*.h' '*.cc' | xargs -0 clang-format --dry-run --Werror
}

check_layers() { python3 tools/check_layers.py; }

check_size() { python3 tools/sz.py; }

# preset, which tests (arguments of ctest), then their environment
build_and_test() {
  local preset=$1 selection=$2
  shift 2
  cmake --preset "$preset" > /dev/null && cmake --build "build/$preset" &&
    env "$@" python3 tools/run_tests.py "build/$preset" $selection
}

check_tests() { build_and_test release ""; }

# After the tests: counts what they reported.
check_models() { python3 tools/models_table.py build/release --check; }

# What users run is what may not contain instructions of another processor.
check_isa() { tools/check_isa_symbols.sh build/release; }

# Instructions of the main kernels against the stored numbers.
check_counts() {
  cmake --preset dev > /dev/null && cmake --build build/dev --target count_kernels && bench/instruction_counts.py
}

# Without the slow tests: they run the code of the others on more data, which takes minutes each here.
check_sanitize() {
  build_and_test sanitize "-LE slow" ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 \
    UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
}

failed=
for step in $steps; do
  declare -F "check_$step" > /dev/null || {
    echo "tools/check.sh: unknown step '$step', expected one of: format layers size tests models isa counts sanitize" >&2
    exit 2
  }
  echo "== $step"
  "check_$step" || failed="$failed $step"
done
if [ -n "$failed" ]; then
  echo "check failed:$failed"
  exit 1
fi
echo "check passed: $steps"
