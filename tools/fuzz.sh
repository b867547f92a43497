#!/usr/bin/env bash
# Builds the fuzz targets and runs each for FUZZ_SECONDS (default 30), starting from fuzz/corpus/NAME where that exists.
# What is learned stays in build/fuzz/corpus/NAME; an input that breaks a target in build/fuzz/crashes/.
#   tools/fuzz.sh [NAME...]        default: all of them, for example fuzz_gguf
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds=${FUZZ_SECONDS:-30}
cmake --preset fuzz > /dev/null
cmake --build build/fuzz --target fuzz_all
mkdir -p build/fuzz/crashes

targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
  mapfile -t targets < <(find build/fuzz/fuzz -maxdepth 1 -type f -executable -name 'fuzz_*' -printf '%f\n' | sort)
fi
[ ${#targets[@]} -gt 0 ] || { echo "tools/fuzz.sh: no fuzz target was built" >&2; exit 1; }

failed=
for target in "${targets[@]}"; do
  corpus=build/fuzz/corpus/$target
  seeds=fuzz/corpus/${target#fuzz_}
  mkdir -p "$corpus"
  folders=("$corpus")
  [ ! -d "$seeds" ] || folders+=("$seeds")
  echo "== $target, $seconds s"
  if ! "build/fuzz/fuzz/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -verbosity=0 \
      -print_final_stats=1 -artifact_prefix="build/fuzz/crashes/$target-" "${folders[@]}"; then
    failed="$failed $target"
  fi
done
if [ -n "$failed" ]; then
  echo "fuzzing found problems in:$failed (inputs in build/fuzz/crashes/)"
  exit 1
fi
echo "${#targets[@]} fuzz targets ran without a finding"
