#!/usr/bin/env bash
# Proves from the object files that vector code stays where the dispatcher guards it:
#   1. an object of src/kernels/x86 exports its table and nothing else;
#   2. its weak symbols (inline functions, of which the linker keeps one copy for all) hold no AVX instruction;
#   3. no other object of the library holds one.
# Usage: tools/check_isa_symbols.sh BUILD_DIR
set -euo pipefail

build=${1:?usage: tools/check_isa_symbols.sh BUILD_DIR}
objects=$build/src/kernels/CMakeFiles/nibble_kernels.dir/x86
problems=0

problem() {
  echo "$1" >&2
  problems=$((problems + 1))
}

# The functions of an object that hold an instruction encoded with VEX or EVEX; in AT&T syntax all of those start with
# v, and nothing else that a compiler makes does.
functions_with_avx() {
  objdump --disassemble --no-show-raw-insn "$1" | awk '
    /^[0-9a-f]+ <.*>:$/ { name = substr($2, 2, length($2) - 3) }
    /^ *[0-9a-f]+:\t(\{[a-z]+\} )?v[a-z]/ && !seen[name]++ { print name }'
}

[[ -d $objects ]] || { echo "$objects: no such folder; is this a build for x86-64?" >&2; exit 1; }

for object in "$objects"/*.o; do
  strong=$(nm --demangle --extern-only --defined-only "$object" | awk '$2 !~ /^[WVwvu]$/ { $1 = $2 = ""; print $0 }')
  [[ $strong =~ ^\ *nibble::k[A-Za-z0-9]+Kernels$ ]] || problem "$object: exports more than its table:"$'\n'"$strong"
  avx=$(functions_with_avx "$object")
  [[ -n $avx ]] || problem "$object: holds no AVX instruction at all; was it compiled for something else?"
  weak=$(nm --extern-only --defined-only "$object" | awk '$2 ~ /^[WVwvu]$/ { print $3 }')
  for name in $weak; do
    if grep --quiet --line-regexp --fixed-strings -- "$name" <<< "$avx"; then
      problem "$object: weak symbol with AVX instructions: $(c++filt "$name")"
    fi
  done
done

while IFS= read -r object; do
  avx=$(functions_with_avx "$object")
  [[ -z $avx ]] || problem "$object: AVX instructions outside kernels/x86, in: $(head -1 <<< "$avx" | c++filt)"
done < <(find "$build/src" -name '*.o' -not -path "$objects/*")

if ((problems > 0)); then
  echo "check_isa_symbols: $problems problem(s)" >&2
  exit 1
fi
echo "check_isa_symbols: vector code is where it belongs"
