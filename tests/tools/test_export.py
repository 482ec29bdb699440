import json

import pytest
import safetensors.numpy

import movq_jax
from movq_jax.errors import UserError
from movq_jax.pretrained.exporting import folder
from movq_jax.tools import export


@pytest.fixture
def calls(monkeypatch):
    """What the library would be asked to export; nothing is."""
    made = []

    def stand_in(name):
        def made_of(model, out, **options):
            made.append((name, options))
            return {"format": name, "files": ["a", "b"]}

        return made_of

    for name in ("stablehlo", "onnx", "diffusers"):
        monkeypatch.setattr(folder, f"export_{name}", stand_in(name))
    return made


def test_a_tokenizer(tiny_bundle, tmp_path, capsys):
    out = tmp_path / "exported"
    flags = ["--image-size=8", "--platforms=cpu", "--json"]
    export.main([f"--model={tiny_bundle}", f"--out={out}", *flags])
    said = capsys.readouterr()
    record = json.loads(said.out)
    assert record["tool"] == "export" and record["format"] == "stablehlo"
    assert record.items() >= json.loads((out / "export.json").read_text()).items()
    assert [program["file"] for program in record["programs"]] == [
        "encoder.stablehlo",
        "decoder.stablehlo",
    ]
    assert record["programs"][0]["image_size"] == [8, 8]
    assert "images uint8 [b, 8, 8, 3] -> ids int32 [b, 2, 2, 2]" in said.err
    assert safetensors.numpy.load_file(out / "decoder.safetensors")
    # Another export takes its place.
    export.main([f"--model={tiny_bundle}", f"--out={out}", *flags[:2]])
    assert f"wrote {out}:" in capsys.readouterr().out


def test_flags_as_arguments(tiny_bundle, tiny_prior_bundle, tmp_path, calls):
    def run(model, *flags):
        export.main([f"--model={model}", f"--out={tmp_path / 'a'}", *flags])
        return calls.pop()

    name, options = run(tiny_bundle)
    assert name == "stablehlo" and options["image_sizes"] == [(256, 256)]
    assert options["pixels"] == "uint8" and options["platforms"] == folder.PLATFORMS
    name, options = run(
        tiny_bundle, "--image-size=256,512x768", "--pixels=float32", "--format=onnx"
    )
    assert (name, options["pixels"]) == ("onnx", "float32")
    assert options["image_sizes"] == [(256, 256), (512, 768)]
    assert run(tiny_bundle, "--format=diffusers") == ("diffusers", {})
    name, options = run(tiny_prior_bundle, "--steps=2", "--platforms=cpu,tpu")
    assert name == "stablehlo" and options["options"] == {"steps": 2}
    assert options["platforms"] == ["cpu", "tpu"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--format=onx"], "--format: invalid choice: 'onx'"),
        (["--image-size=big"], "'big' is no size: give 256, or 256x512"),
        (["--image-size=256,"], "'' is no size"),
        (["--image-size=8x10"], "8x10 have no grid .* multiples of 4"),
        (["--platforms=cpuu"], r"'cpuu' is no platform \(did you mean 'cpu'\?\)"),
        (["--platforms=cpu", "--format=onnx"], "no meaning with --format=onnx"),
        (["--pixels=uint8", "--format=diffusers"], "--pixels has no meaning"),
        (["--image-size=8", "--format=diffusers"], "--image-size has no meaning"),
        (["--top-k=5"], "--top-k is for priors, and the model in .* is a tokenizer"),
        (["--format=diffusers"], "VQModel"),
    ],
)
def test_what_does_not_fit_a_tokenizer(flags, message, tiny_bundle, tmp_path):
    with pytest.raises(UserError, match=message):
        export.main([f"--model={tiny_bundle}", f"--out={tmp_path / 'a'}", *flags])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--format=onnx"], "a prior: give the folder model/tokenizer in it"),
        (["--format=diffusers"], "a prior: give the folder model/tokenizer in it"),
        (["--image-size=8"], "one size: leave out --image-size"),
        (["--temperature=1,1,1"], "--temperature has 3 values and the prior 2"),
    ],
)
def test_what_does_not_fit_a_prior(flags, message, tiny_prior_bundle, tmp_path):
    with pytest.raises(UserError, match=message):
        export.main([f"--model={tiny_prior_bundle}", f"--out={tmp_path / 'a'}", *flags])
    assert not list(tmp_path.iterdir())


def test_places(tiny_bundle, tmp_path):
    with pytest.raises(UserError, match="there is no model at"):
        export.main([f"--model={tmp_path / 'x'}", f"--out={tmp_path / 'a'}"])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="it is a file; name a folder"):
        export.main([f"--model={tiny_bundle}", f"--out={tmp_path / 'file'}"])
    with pytest.raises(UserError, match="has files, but no export.json"):
        export.main([f"--model={tiny_bundle}", f"--out={tmp_path}"])


def test_the_folder_inside_a_prior_is_a_tokenizer(tiny_prior_bundle, tmp_path, calls):
    inside = tiny_prior_bundle / "model" / "tokenizer"
    export.main([f"--model={inside}", f"--out={tmp_path / 'a'}", "--format=onnx"])
    assert calls[0][0] == "onnx"
    assert movq_jax.load(inside).factor == 4
