#!/usr/bin/env bash
# Train a small MoVQ on eight photographs and look at the result: `make demo`.
#
#   launch/demo.sh [WORKDIR]     default: runs/demo
#
# $PYTHON has movq_jax[photos]; the dataset goes to $TFDS_DATA_DIR, or to ./data. Run it
# again, and what is done is not done twice: training resumes where it was.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
workdir=${1:-runs/demo}
export TFDS_DATA_DIR=${TFDS_DATA_DIR:-$PWD/data}

run() {
  printf '\n$ %s\n' "$*"
  "$@"
}

run "$python" -m movq_jax.tools.prepare --dataset=photos
run "$python" -m movq_jax.main --config=configs/movq_photos.py --workdir="$workdir"

held_out=()
while IFS= read -r photograph; do
  held_out+=("$photograph")
done < <("$python" -c '
from movq_jax.data.builders import photos
for example in photos.find().splits["validation"]:
    print(example.path)
')
run "$python" -m movq_jax.tools.reconstruct --model="$workdir" \
  --input "${held_out[@]}" --output="$workdir/reconstructions"

cat <<END

Where to look:
  $workdir/reconstructions/overview.png      photographs it never saw, and what the
                                         model makes of them from its indices
  $workdir/reconstructions/metrics.json      their PSNR and SSIM
  $workdir/metrics.jsonl                     the course of the training
  tensorboard --logdir=$workdir              the same with pictures (pip install tensorboard)
END
