"""MaskGIT over MoVQ of ImageNet at 256²: 16x16 positions of 4 channels, 1,000 classes.

Paper: arXiv 2209.09002, the class-conditional ImageNet table's row "MoVQ + MaskGIT":
FID 7.22. Its 4 channels are masked and drawn together; how their logits depend on each
other is not published. Here a depth head models them one after the other, given the
position (a choice of this project, as are 16 heads and width 1024). DIR is where
ImageNet lies, see README; runs/movq is the tokenizer.

    python -m movq_jax.tools.prepare --dataset=imagenet --source=DIR
    python -m movq_jax.main --config=configs/movq_imagenet.py --workdir=runs/movq
    python -m movq_jax.tools.tokenize --model=runs/movq --dataset=imagenet \
        --split=train --flip --out=tokens/train
    python -m movq_jax.tools.tokenize --model=runs/movq --dataset=imagenet \
        --split=validation --out=tokens/eval
    python -m movq_jax.main --config=configs/maskgit_movq_imagenet.py \
        --config.tokenizer=runs/movq --config.cache.train=tokens/train \
        --config.cache.eval=tokens/eval

Without caches the images are encoded at each step. From MaskGIT (2202.04200) and its
released config: 24 post-norm blocks, dropout 0.1, cosine masks, label smoothing 0.1,
AdamW (0.9, 0.96) at 1e-4 with decay 0.045, warm-up of 5,000 steps, batch 256, 300
epochs, averaged weights of decay 0.999. Class dropout 0.1 is for guidance, which
MaskGIT has not. bfloat16 and clipping at 1 are choices of this project.

Number to reach: FID 7.22 says the paper; none measured here yet.
Cost: 384 million images at about 0.73 TFLOP (three times 164 + 80 GFLOP of trunk and
head), not measured.
Arguments: `parallel`, `independent` (the other ways to model channels, see
`prior_schema.masked`), `tiny` (seconds, to see that everything runs).
"""

from ml_collections import ConfigDict

from movq_jax.config import choose_one, prior_schema, read_arg

TRAIN_IMAGES = 1_281_167
EPOCHS = 300
BATCH_SIZE = 256


def get_config(arg: str = "") -> ConfigDict:
    """Return the config; `arg` may hold a way to model channels, and 'tiny'."""
    words = read_arg(arg, [*prior_schema.CHANNELS, "tiny"])
    config = prior_schema.prior_config()
    config.tokenizer_config = "movq_imagenet"
    config.model.update(width=1024, heads=16, mlp=4096, dtype="bfloat16")
    config.model.num_classes = 1_000
    config.optim.clip.gen.update(name="global_norm", value=1.0)
    config.data.dataset = "imagenet"
    config.data.train.crop = {"name": "random_resized"}
    config.train.batch_size = BATCH_SIZE
    config.train.num_steps = EPOCHS * TRAIN_IMAGES // BATCH_SIZE
    prior_schema.vary_channels(config, choose_one(words, prior_schema.CHANNELS))
    return prior_schema.shrink(config) if "tiny" in words else config
