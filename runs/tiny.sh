#!/usr/bin/env bash
# The whole chain, top to bottom: the map of the project.
#
#   runs/tiny.sh [OUT]            everything, from nothing    (default OUT: out/tiny)
#   runs/tiny.sh --smoke [OUT]    the same lines at toy length, minutes; CI runs it
#   runs/tiny.sh --minutes 9 ...  stop training after 9 minutes (exit code 3), to be run again
#
# Resumable: a stage whose result is there is skipped, and training goes on from its last state.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH="$PWD/.venv/bin:$PATH" # what `make setup` installed, where it did

smoke=false
train=()
out=
while [[ $# -gt 0 ]]; do
    case $1 in
        --smoke) smoke=true train+=(--smoke) ;;
        --minutes) train+=(--minutes "${2:?--minutes needs a number}") && shift ;;
        -*) echo "usage: runs/tiny.sh [--smoke] [--minutes M] [OUT]" >&2 && exit 2 ;;
        *) out=$1 ;;
    esac
    shift
done

if $smoke; then
    out=${out:-out/smoke} rows=72 samples=8 questions=8 asked=1
else
    out=${out:-out/tiny} rows=64000 samples=128 questions=1000 asked=25
fi
mkdir -p "$out"
# Twice as fast where there is a compiler; not worth its start-up at toy length.
if ! $smoke && { command -v g++ || command -v clang++; } > /dev/null; then
    train+=(--compile)
fi

# Says what comes next, and runs it unless its result (the first argument) is already there.
stage() {
    local result=$1
    shift
    if [[ -e $result ]]; then
        echo "== $result: there already"
    else
        echo "== $result: $*"
        "$@"
    fi
}

# 1. Data: scenes drawn from seeds, with questions and attributes. The test split shares no seed
#    with it and has fonts, layouts and shades of its own; it is never written: `eval` draws it.
#    A drill, pages of plates, comes on top: reading takes longest to learn.
stage "$out/data" autoneural data cockpit -o "$out/data" --drills --split train --n $rows

# 2. Tokenizer: byte-level BPE over the questions and answers, with LFM2-VL's special tokens.
stage "$out/data/tokenizer/tokenizer.json" autoneural tokenizer "$out/data" -o "$out/data/tokenizer"

# 3. Training: vision and language apart, then the paper's four stages: align, general, instruct,
#    domain. The state in float-run/ is saved every few minutes: a killed run goes on where it was.
stage "$out/float" autoneural train --recipe tiny "${train[@]}" --data "$out/data" -o "$out/float"

# 4. Compression: W8A16 vision, W4A16 language, 8-bit key/value cache, calibrated on training rows.
stage "$out/ptq" autoneural compress "$out/float" --recipe ptq --precision w4a16kv8 \
    --data "$out/data" --samples $samples --questions $asked -o "$out/ptq"

# 5. Export: graphs for ONNX Runtime (cpu) and for NPUs (qdq), in one verified bundle.
stage "$out/bundle" autoneural export "$out/ptq" --targets cpu qdq -o "$out/bundle"

# 6. Evaluation: held-out questions, float against both targets, paired.
evaluate() { # target, model, options
    local records="$out/eval-$1.jsonl" target=$1 model=$2
    shift 2
    stage "$records" autoneural eval "$model" --target "$target" --n $questions \
        --records "$records" "$@"
}
evaluate torch "$out/float"
evaluate cpu "$out/bundle"
evaluate qdq "$out/bundle" --no-blind # slow: run as written, not optimised
autoneural compare "$out/eval-torch.jsonl" "$out/eval-qdq.jsonl"

# 7. Use it.
autoneural show "$out/bundle"
