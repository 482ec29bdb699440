#!/usr/bin/env bash
# Train a small prior on the demo's tokenizer and draw from it: `make demo-prior`.
#
#   launch/demo_prior.sh [WORKDIR]     default: runs/demo_prior
#
# Goes on from launch/demo.sh, whose tokenizer is in $TOKENIZER (default: runs/demo). Run
# it again, and what is done is not done twice.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
workdir=${1:-runs/demo_prior}
tokenizer=${TOKENIZER:-runs/demo}
export TFDS_DATA_DIR=${TFDS_DATA_DIR:-$PWD/data}

run() {
  printf '\n$ %s\n' "$*"
  "$@"
}

run "$python" -m movq_jax.main --config=configs/maskgit_photos.py \
  --config.tokenizer="$tokenizer" --workdir="$workdir"
run "$python" -m movq_jax.tools.sample --model="$workdir" \
  --output="$workdir/samples" --num=32 --strip=1

held_out=$("$python" -c '
from movq_jax.data.builders import photos
print(photos.find().splits["validation"][0].path)
')
run "$python" -m movq_jax.tools.edit inpaint --model="$workdir" \
  --input="$held_out" --box=100,100,116,116 --output="$workdir/inpaint"

cat <<END

Where to look:
  $workdir/samples/grid.png       what the prior draws: textures, of six photographs
  $workdir/samples/strips         how the first one came to be, step by step
  $workdir/inpaint/overview.png   a photograph that it never saw, with a hole filled
  $workdir/metrics.jsonl          the course of the training
END
