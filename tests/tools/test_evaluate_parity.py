"""`movq evaluate` against torch-fidelity: the same folders, random weights."""

import json
import warnings

import numpy as np
import pytest
from PIL import Image

from movq_jax.tools import command, evaluate


def write_images(folder, *, seed, contrast):
    """24 smooth images of three sizes, so that features differ and are not noise."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for number in range(24):
        blocks = 128 + contrast * rng.standard_normal((5, 6, 3))
        image = Image.fromarray(np.clip(blocks, 0, 255).astype(np.uint8))
        size = [(48, 40), (64, 64), (90, 120)][number % 3]
        image.resize(size, Image.Resampling.BICUBIC).save(folder / f"{number:02d}.png")


@pytest.mark.parity
@pytest.mark.slow
def test_numbers_are_torch_fidelitys(torch, inception_npz, tmp_path, capsys):
    fidelity = pytest.importorskip("torch_fidelity")
    write_images(tmp_path / "made", seed=1, contrast=60)
    write_images(tmp_path / "real", seed=2, contrast=80)
    with np.load(inception_npz) as archive:
        state = {name: torch.from_numpy(archive[name]) for name in archive.files}
    torch.save(state, tmp_path / "inception.pth")
    with warnings.catch_warnings(action="ignore"):  # of its loader of images
        theirs = fidelity.calculate_metrics(
            input1=str(tmp_path / "made"),
            input2=str(tmp_path / "real"),
            **dict.fromkeys(("isc", "fid", "kid", "prc"), True),
            kid_subset_size=20,
            feature_extractor="inception-v3-compat",
            feature_layer_prc="2048",  # by default theirs looks through VGG16
            feature_extractor_weights_path=str(tmp_path / "inception.pth"),
            batch_size=1,  # of images of several sizes
            cuda=False,
            cache=False,
            verbose=False,
        )
    flags = ["--protocol=torch_fidelity", "--kid-subset=20", "--json"]
    flags += ["--metrics=is,fid,kid,precision,recall"]
    flags += [f"--images={tmp_path / 'made'}", f"--reference={tmp_path / 'real'}"]
    flags += [f"--inception={tmp_path / 'inception.pth'}"]
    assert command.run(evaluate.main, flags) == 0
    found = json.loads(capsys.readouterr().out)["metrics"]
    for name, key in {
        "is": "inception_score_mean",
        "fid": "frechet_inception_distance",
        "kid": "kernel_inception_distance_mean",
        "precision": "precision",
        "recall": "recall",
    }.items():
        assert found[name]["value"] == pytest.approx(theirs[key], rel=1e-4), name
    assert found["is"]["value"] > 1.001 and found["fid"]["value"] > 1
    assert 0 < found["recall"]["value"] < 1 or 0 < found["precision"]["value"] < 1
