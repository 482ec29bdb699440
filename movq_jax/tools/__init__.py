"""The commands: `movq NAME ...`, or `python -m movq_jax.tools.NAME ...`.

Each is a module `movq_jax.tools.<name>` with `main(argv)`; the module is imported
when it is asked for, so that listing them stays fast.
"""

TOOLS = {
    "prepare": "photographs -> a dataset to train on",
    "describe": "how large a model is, and which batch fits into memory",
    "reconstruct": "images -> tokenizer -> images, with PSNR and SSIM of each",
    "encode": "images -> one npz of indices",
    "decode": "an npz of indices -> images",
    "tokenize": "a dataset -> indices to train a prior on",
    "sample": "new pictures, drawn by a prior",
    "complete": "pictures of which a prior draws the lower part anew",
    "edit": "pictures changed by a prior: inpaint, outpaint, variations",
    "codebook": "how the codes of a model are used, as a report with pictures",
    "evaluate": "PSNR to FID of images or of a model, by a named protocol",
    "compare": "evaluations side by side",
    "curves": "the numbers of several runs over their steps, as a picture",
    "convert": "weights that others published -> a model",
    "hub": "models to and from the Hugging Face Hub",
    "export": "a model as StableHLO, ONNX or diffusers' weights",
    "benchmark": "how fast training, encoding, decoding and the input are",
}
