import json

import pytest

from movq_jax.errors import UserError
from movq_jax.pretrained.formats.finding import find_weights, read_config


def touch(folder, *names):
    """Make empty files."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    "names, found",
    [
        (["a.ckpt", "notes.txt", ".b.ckpt"], "a.ckpt"),
        (["configs/model.yaml", "checkpoints/last.ckpt"], "checkpoints/last.ckpt"),
        (["tokenizer_imagenet256_checkpoint"], "tokenizer_imagenet256_checkpoint"),
        (
            ["diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"],
            "diffusion_pytorch_model.safetensors",
        ),
        (["unet/x.bin", "movq/diffusion_pytorch_model.bin"],) * 2,
        (
            ["m-1-of-2.safetensors", "m-2-of-2.safetensors"],
            "m.safetensors.index.json",
        ),
    ],
)
def test_which_file_a_folder_means(tmp_path, names, found):
    found = found if isinstance(found, str) else names[1]
    touch(tmp_path, *names, found)
    assert find_weights(tmp_path) == tmp_path / found


def test_a_file_is_itself(tmp_path):
    touch(tmp_path, "any name")
    assert find_weights(tmp_path / "any name") == tmp_path / "any name"


def test_folders_that_are_not_clear(tmp_path, tiny_bundle):
    with pytest.raises(UserError, match="there is no file or folder"):
        find_weights(tmp_path / "x")
    with pytest.raises(UserError, match="there are no weights in"):
        find_weights(tmp_path)
    touch(tmp_path, "a.ckpt", "b.pth")
    with pytest.raises(UserError, match=r"several files of weights \(a.ckpt, b.pth\)"):
        find_weights(tmp_path)
    for own in (tiny_bundle, tiny_bundle / "model"):
        with pytest.raises(UserError, match="is a model of this project already"):
            find_weights(own)


def test_configs_that_are_none(tmp_path):
    path = tmp_path / "config.json"
    assert read_config(path) is None
    for text in ("{", "[1]", "\udcff", "[" * 100_000):
        path.write_text(text, errors="surrogateescape")
        assert read_config(path) is None
    path.write_text(json.dumps({"a": 1}))
    assert read_config(path) == {"a": 1}
