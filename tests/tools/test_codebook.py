import json
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from movq_jax import compilation_cache
from movq_jax.data.builders import folder
from movq_jax.data.preparing.writing import write_dataset
from movq_jax.evaluation.codebooks import probe as codebook_probe
from movq_jax.models.tokenizer import build_tokenizer
from movq_jax.pretrained.bundle import write_bundle
from movq_jax.pretrained.tokenizer import PretrainedTokenizer
from movq_jax.tools import codebook, command

pytest.importorskip("matplotlib", reason="the extra `plots` is not installed")


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setattr(compilation_cache, "enable", lambda: None)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def make_bundle(tmp_path, tiny_movq, fill):
    """Write the bundle of an untrained model with another quantizer."""

    def make(name="other", *, protocol=None, **changes):
        config = tiny_movq | changes
        tokenizer = build_tokenizer(config)
        side = tokenizer.factor
        params = fill(tokenizer, np.zeros((1, side, side, 3), np.float32))
        write_bundle(
            tmp_path / name / "model",
            kind="tokenizer",
            params=params,
            model=config,
            protocol=protocol or {"weights": "random"},
        )
        return tmp_path / name

    return make


@pytest.fixture
def data_dir(tmp_path, photos):
    """A data dir with the dataset `small`, made of the photographs."""
    place = tmp_path / "data"
    (photos / "trip").rename(tmp_path / "trip")
    listing = folder.find(str(photos), validation_fraction=0.5)
    write_dataset(listing, name="small", data_dir=place)
    return place


def run(model, data, out, *flags):
    argv = [f"--model={model}", f"--data={data}", f"--output={out}", *flags]
    return command.run(codebook.main, argv)


def small(model, photos, out, *flags):
    return run(model, photos / "a.*", out, "--image-size=16", *flags)


def read(out):
    return json.loads((out / "codebook.json").read_text())


def test_a_report_of_files(tiny_bundle, photos, out, capsys):
    assert small(tiny_bundle, photos, out, "--json", "--micro-batch=2") == 0
    captured = capsys.readouterr()
    record = read(out)
    assert json.loads(captured.out) == record
    assert "codes used" in captured.err and "codebook.html" in captured.err
    assert record["data"]["num_images"] == 2 and record["data"]["positions"] == 32
    assert record["bits"]["per_image"]["mean"] == 160  # 16 positions, 2 of 32 codes
    book = record["books"]["codebook"]
    assert book["size"] == 32 and book["positions"] == 64
    assert book["used"] + book["dead"] == 32
    assert [c["positions"] for c in record["channels"]] == [32, 32]
    assert record["pairs"][0]["channels"] == [0, 1]
    assert record["pairs"][0]["most"] == 32
    assert record["quantisation_mse"] > 0
    assert book["neighbours"]["codes"] == 32
    assert [i["name"] for i in record["reconstruction"]["best"]] != [
        i["name"] for i in record["reconstruction"]["worst"]
    ]
    page = (out / "codebook.html").read_text()
    assert page.count("data:image/png;base64,") == len(record["pictures"]) == 6
    for name in record["pictures"]:
        Image.open(out / name).verify()
    assert "short side" in page and record["model"]["fingerprint"] in page
    assert not list(out.rglob("*.tmp"))


def test_the_numbers_are_those_of_the_model(tiny_bundle, photos, out):
    path = photos / "b.png"  # 21 x 30, padded to 24 x 32
    assert run(tiny_bundle, path, out) == 0
    record = read(out)
    assert record["protocol"]["preprocessing"] == "images as they are"
    assert record["data"]["positions"] == 6 * 8

    with Image.open(path) as image:
        pixels = np.pad(np.asarray(image), ((0, 3), (0, 2), (0, 0)), mode="edge")
    import movq_jax

    tok = movq_jax.load(tiny_bundle)
    ids = tok.encode(pixels[None])
    counts = np.bincount(ids.flat, minlength=32)
    assert record["books"]["codebook"]["used"] == (counts > 0).sum()
    made = tok.decode(ids)[0, :21, :30].astype(float)
    error = np.mean(((made - pixels[:21, :30]) / 255) ** 2)
    psnr = record["reconstruction"]["model"]["psnr"]
    assert psnr == pytest.approx(-10 * np.log10(error))


def test_a_second_model_of_another_factor(tiny_bundle, make_bundle, photos, out):
    other = make_bundle(multipliers=[1, 2, 2, 2])
    flags = [f"--second-model={other}", "--image-size=18", "--micro-batch=2"]
    assert run(tiny_bundle, photos / "a.*", out, *flags) == 0
    record = read(out)
    assert (record["model"]["factor"], record["second_model"]["factor"]) == (4, 8)
    assert record["data"]["positions"] == 2 * 25
    for image in record["reconstruction"]["best"]:
        assert (image["width"], image["height"]) == (18, 18)
        assert image["second_model"]["psnr"] > 0
    assert record["reconstruction"]["second_model"]["psnr_left_out"] == 0
    assert "second model" in (out / "codebook.html").read_text()


def test_a_dual_model(make_bundle, photos, out, monkeypatch):
    dual = {"name": "dual", "codebook_size": [16, 24], "dim": 8, "depth": 0}
    assert small(make_bundle(quantizer=dual), photos, out) == 0
    record = read(out)
    assert list(record["books"]) == ["global_codebook", "local_codebook"]
    assert [book["size"] for book in record["books"].values()] == [16, 24]
    assert {name for name in record["pictures"] if "mosaic" in name} == {
        "mosaic_global_codebook.png",
        "mosaic_local_codebook.png",
        "mosaic_pairs.png",
    }
    page = (out / "codebook.html").read_text()
    assert "the numbering of the two is not related" in page


def test_quantizers_without_a_book(make_bundle, photos, out, monkeypatch):
    monkeypatch.setattr(codebook_probe, "MAX_TILES", 4)
    bundle = make_bundle(quantizer={"name": "fsq", "levels": [8, 8, 8]})
    assert small(bundle, photos, out) == 0
    assert read(out)["books"]["codebook"]["neighbours"] is None
    page = (out / "codebook.html").read_text()
    assert "keeps no book" in page and "Shown are the 4 most used" in page
    assert "no channels to compare" in page


def test_tiles_of_a_residual_model_are_its_first_step(make_bundle, photos, out):
    residual = {"name": "residual", "codebook_size": 8, "dim": 4, "num_channels": 3}
    bundle = make_bundle(quantizer=residual)
    assert small(bundle, photos, out) == 0
    assert "as if the residual steps ended" in (out / "codebook.html").read_text()

    import movq_jax

    probe = codebook_probe.Probe(tok := movq_jax.load(bundle))
    every = np.array([[1, 2, 3]], np.int32)
    (tile,) = probe.tiles(every)
    assert np.abs(tile.astype(int) - tok.decode(every[:, None, None])).max() <= 1
    (first,) = probe.tiles(np.array([[1, -1, -1]], np.int32))
    latent = tok.codes_in_effect()["codebook"][1][None, None, None]
    decode = tok.compiled(lambda tokenizer, z: tokenizer.decode_latents(z))
    x = decode(latent)
    expected = np.rint((np.clip(x, -1, 1) + 1) * 127.5)
    assert np.abs(first.astype(int) - expected).max() <= 1


def test_a_dataset_is_seen_as_in_training(make_bundle, data_dir, out, capsys):
    evaluated = {
        "resize": {"name": "short_side"},
        "crop": {"name": "center"},
        "image_size": 0,  # that of training, which the run's config tells
    }
    bundle = make_bundle(protocol={"eval": evaluated})
    (bundle / "config.json").write_text(json.dumps({"data": {"image_size": 12}}))
    flags = [f"--data-dir={data_dir}", "--split=train", "--num=1"]
    assert run(bundle, "small", out, *flags) == 0
    record = read(out)
    assert record["data"]["name"] == "small/1.0.0 train"
    assert record["data"]["num_images"] == 1 and record["data"]["positions"] == 9
    assert "to 12 x 12, as in training" in record["protocol"]["preprocessing"]


def test_images_smaller_than_a_position(tiny_bundle, photos, out):
    assert run(tiny_bundle, photos / "tiny.png", out) == 0  # 3 x 5
    record = read(out)
    assert record["data"]["positions"] == 2
    assert record["reconstruction"]["model"]["ssim"] is None
    assert record["reconstruction"]["worst"] == []


def test_bad_files_are_named_and_the_others_done(tiny_bundle, photos, out, capsys):
    (photos / "a.gif").write_text("no image")
    assert small(tiny_bundle, photos, out) == 4
    error = capsys.readouterr().err
    assert "a.gif is not an image" in error and "1 of 3 files refused" in error
    record = read(out)
    assert record["data"]["num_images"] == 2 and len(record["refused"]) == 1
    assert "a.gif" in (out / "codebook.html").read_text()


def test_nothing_but_bad_files(tiny_bundle, photos, out, capsys):
    (photos / "a.gif").write_text("no image")
    assert run(tiny_bundle, photos / "a.gif", out) == 4
    assert not out.exists()


def test_images_that_memory_does_not_suffice_for(
    tiny_bundle, photos, out, capsys, monkeypatch
):
    decode = PretrainedTokenizer.decode

    def short(self, ids, *args):
        if ids.shape[1] == 10:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return decode(self, ids, *args)

    monkeypatch.setattr(PretrainedTokenizer, "decode", short)
    argv = [f"--data={photos / 'tiny.png'}", f"--data={photos / 'c.webp'}"]
    argv += [f"--model={tiny_bundle}", f"--output={out}"]
    argv += [f"--second-model={tiny_bundle}"]
    assert command.run(codebook.main, argv) == 4
    assert "c.webp: it is 17 x 40" in capsys.readouterr().err
    assert read(out)["data"]["num_images"] == 1


def test_a_second_run_takes_the_place_of_the_first(tiny_bundle, photos, out):
    assert small(tiny_bundle, photos, out) == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    (out / "codebook.html").write_text("old")
    assert small(tiny_bundle, photos, out) == 0
    assert {path: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num=0"], "'0' is not a positive whole number"),
        (["--image-size=0"], "'0' is not a positive whole number"),
        (["--model={tmp}/none"], "there is no model at"),
        (["--second-model={tmp}/none"], "there is no model at"),
        (["--data={tmp}/none.jpg", "--split=test"], "names several things"),
        (["--output={tmp}/file"], "is a file: name a folder"),
        (["--output={tmp}/file/out"], "cannot write"),
        (["--output="], "--output has an empty value"),
    ],
)
def test_what_is_wrong_is_said(tiny_bundle, photos, tmp_path, capsys, flags, message):
    (tmp_path / "file").write_text("")
    out = tmp_path / "out"
    flags = [flag.format(tmp=tmp_path) for flag in flags]
    assert small(tiny_bundle, photos, out, *flags) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_data_that_is_not_there(tiny_bundle, data_dir, tmp_path, out, capsys):
    for data, flags, message in (
        ("smal", [], "did you mean 'small'"),
        ("small", ["--split=nope"], "it has"),
        (tmp_path / "none.jpg", [], "none.jpg is neither a file or a folder nor"),
        (tmp_path / "empty", [], "no files in"),
    ):
        (tmp_path / "empty").mkdir(exist_ok=True)
        place = [] if "/" in str(data) else [f"--data-dir={data_dir}"]
        assert run(tiny_bundle, data, out, *place, *flags) == 2
        assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_model_that_is_no_tokenizer(tiny_prior_bundle, photos, out, capsys):
    assert small(tiny_prior_bundle, photos, out) == 2
    assert "is a prior, not a tokenizer" in capsys.readouterr().err


def test_pictures_of_others_are_not_overwritten(tiny_bundle, photos, out, capsys):
    out.mkdir()
    Image.new("RGB", (5, 5)).save(out / "usage.png")
    before = (out / "usage.png").read_bytes()
    assert small(tiny_bundle, photos, out) == 2
    assert "is not a result of movq" in capsys.readouterr().err
    assert (out / "usage.png").read_bytes() == before


def test_matplotlib_is_missed_before_the_work(
    tiny_bundle, photos, out, capsys, monkeypatch
):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    assert small(tiny_bundle, photos, out) == 2
    assert "pip install 'movq_jax[plots]'" in capsys.readouterr().err
    assert not out.exists()
