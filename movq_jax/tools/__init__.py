"""The commands: `movq NAME ...`, or `python -m movq_jax.tools.NAME ...`.

Each is a module `movq_jax.tools.<name>` with `main(argv)`; the module is imported
when it is asked for, so that listing them stays fast.
"""

TOOLS = {
    "prepare": "photographs -> a dataset to train on",
    "reconstruct": "images -> tokenizer -> images, with PSNR and SSIM of each",
    "encode": "images -> one npz of indices",
    "decode": "an npz of indices -> images",
    "benchmark": "how fast the input pipeline is",
}
