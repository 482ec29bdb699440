import hashlib
import json
import shutil

import numpy as np
import pytest
import safetensors.numpy
from etils import epath

import movq_jax
from movq_jax import atomic
from movq_jax.errors import UserError
from movq_jax.models.tokenizer import build_tokenizer
from movq_jax.pretrained import converting, named, named_models
from movq_jax.pretrained.bundle import (
    find_bundle,
    flatten,
    read_bundle,
    write_bundle,
)
from movq_jax.pretrained.formats.vqgan_names import to_theirs, vqgan_names
from movq_jax.pretrained.loading import load_tokenizer
from movq_jax.pretrained.named import find_or_convert
from movq_jax.pretrained.named_models import NAMED_MODELS, NamedFile, NamedModel
from movq_jax.pretrained.prior_bundle import read_prior_bundle, write_prior_bundle
from movq_jax.training.prior_resolving import read_tokenizer

DATA = b"weights that somebody published"
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def table(monkeypatch):
    """The table of names, empty."""
    monkeypatch.setattr(named_models, "NAMED_MODELS", {})
    for module in ("named", "places"):
        name = f"movq_jax.pretrained.{module}.NAMED_MODELS"
        monkeypatch.setattr(name, named_models.NAMED_MODELS)
    return named_models.NAMED_MODELS


@pytest.fixture
def converted(monkeypatch, tiny_bundle, tiny_prior_bundle):
    """Conversion, which takes anything and gives the tiny models; what it was given."""
    paths = []

    def convert(path):
        paths.append(path)
        kind = "prior" if "prior" in path.name else "tokenizer"
        bundle = read_bundle(tiny_bundle if kind == "tokenizer" else tiny_prior_bundle)
        source = {"file": path.name, "sha256": "0" * 64, "skipped": {}}
        parts = (bundle.model, bundle.params, source)
        return converting.Conversion(kind, "test", *parts)

    def write(conversion, out, tokenizer=None):
        protocol = {"source": conversion.source}
        if conversion.kind == "tokenizer":
            model, params = conversion.model, conversion.params
            parts = {"params": params, "model": model, "protocol": protocol}
            return write_bundle(out, kind="tokenizer", **parts)
        return write_prior_bundle(
            out,
            params=conversion.params,
            model=conversion.model["prior"],
            tokens=conversion.model["tokens"],
            protocol=protocol | {"sample": {}, "classes": []},
            tokenizer=read_bundle(tokenizer),
        )

    monkeypatch.setattr(converting, "convert", convert)
    monkeypatch.setattr(converting, "write_converted", write)
    return paths


@pytest.fixture
def net(table, converted, web, home):
    """The model 'net' of one file, which is served; its server."""
    (web.folder / "net.ckpt").write_bytes(DATA)
    file = NamedFile("net.ckpt", f"{web.url}/net.ckpt")
    table["net"] = NamedModel("a net", "https://page", "MIT", (file,))
    return web


def refused(name):
    with pytest.raises(UserError) as error:
        movq_jax.load(name)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_the_table():
    for name, model in NAMED_MODELS.items():
        assert name == name.lower() and "/" not in name
        assert model.about and model.page.startswith("https://") and model.licence
        assert not model.verified, "say where it is tested"
        assert model.files and (not model.tokenizer or model.tokenizer in NAMED_MODELS)
        for file in model.files:
            assert file.url.startswith("https://") and "/" not in file.name
            assert not file.sha256 or len(bytes.fromhex(file.sha256)) == 32
    files = [model.files for model in NAMED_MODELS.values()]
    assert len(set(files)) == len(files)


def test_a_name_is_fetched_and_converted_once(
    net, converted, home, tiny_bundle, capsys
):
    tok = movq_jax.load("net", micro_batch=3)
    assert tok.micro_batch == 3
    folder = home / ".cache/movq_jax/weights/models/net"
    assert tok.fingerprint == read_bundle(tiny_bundle).fingerprint
    assert (folder / "source" / "net.ckpt").read_bytes() == DATA
    record = json.loads((folder / "SHA256.json").read_text())
    assert record == {"files": {"net.ckpt": DIGEST}, "bundle": tok.fingerprint}
    told = capsys.readouterr().err
    assert f"no SHA-256 was published; from now on it is {DIGEST}" in told
    assert "licence of the weights is MIT" in told and "not yet compared" in told
    source = tok.protocol["source"]
    assert source["name"] == "net" and source["files"] == {"net.ckpt": DIGEST}
    assert source["licence"] == "MIT" and source["urls"] == [f"{net.url}/net.ckpt"]
    assert load_tokenizer("net").fingerprint == tok.fingerprint
    assert net.asked == ["/net.ckpt"] and len(converted) == 1
    assert not capsys.readouterr().err
    left = {path.name for path in folder.iterdir()}
    assert left == {"source", "bundle", "SHA256.json"}


def test_the_card_has_the_source_and_its_licence(net, home):
    card = (find_or_convert("net") / "README.md").read_text()
    assert 'license: "mit"' in card and "# net: image tokenizer" in card
    assert DIGEST in card and f"{net.url}/net.ckpt" in card


def test_an_unknown_licence_is_said(net, table, capsys):
    table["net"] = table["net"]._replace(licence="unknown")
    card = (find_or_convert("net") / "README.md").read_text()
    assert 'license: "unknown"' in card
    assert "licence of the weights is unknown; see https://page" in (
        capsys.readouterr().err
    )


def test_what_reads_bundles_takes_a_name(net):
    fingerprint = read_tokenizer("net").fingerprint
    assert fingerprint == read_bundle("net").fingerprint
    assert find_bundle("net") == epath.Path(named.named_folder("net") / "bundle")


def test_a_folder_of_that_name_wins(net, tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_bundle, tmp_path / "net")
    assert read_bundle("net").kind == "tokenizer" and not net.asked
    shutil.rmtree(tmp_path / "net" / "model")
    assert "there is no model in net" in refused("net")


def test_an_unknown_name(net):
    message = refused("nets")
    assert "there is no model at nets: no such folder, and no published" in message
    assert "did you mean 'net'? Known: net" in message
    assert "published" not in refused("runs/nets")
    with pytest.raises(UserError, match="no published model is called nets"):
        find_or_convert("nets")


def test_a_model_of_several_files_is_a_folder(net, table, converted, home):
    (net.folder / "config.json").write_text("{}")
    files = [
        NamedFile(name, f"{net.url}/{name}") for name in ("config.json", "net.ckpt")
    ]
    table["net"] = table["net"]._replace(files=tuple(files))
    find_or_convert("net")
    folder = home / ".cache/movq_jax/weights/models/net/source"
    assert converted == [folder]
    assert {path.name for path in folder.iterdir()} == {"config.json", "net.ckpt"}


def test_a_prior_brings_its_tokenizer(net, table, converted, tiny_prior_bundle):
    (net.folder / "prior.ckpt").write_bytes(b"more weights")
    file = NamedFile("prior.ckpt", f"{net.url}/prior.ckpt")
    parts = ("a prior", "https://page", "unknown", (file,))
    table["a-prior"] = NamedModel(*parts, tokenizer="net")
    prior, tokenizer = read_prior_bundle("a-prior")
    assert prior.fingerprint == read_bundle(tiny_prior_bundle).fingerprint
    assert net.asked == ["/net.ckpt", "/prior.ckpt"]
    assert read_bundle("net").fingerprint == tokenizer.fingerprint


def test_what_is_fetched_again_must_be_what_it_was(net, home):
    folder = find_or_convert("net").parent
    shutil.rmtree(folder / "bundle")
    find_or_convert("net")  # of the file that is there
    assert net.asked == ["/net.ckpt"]
    shutil.rmtree(folder / "bundle")
    (folder / "source" / "net.ckpt").write_bytes(b"another")
    message = refused("net")
    assert "is another file than the first one" in message and DIGEST in message
    (folder / "source" / "net.ckpt").unlink()
    (net.folder / "net.ckpt").write_bytes(b"published anew")
    message = refused("net")
    assert "what came has the SHA-256" in message and f"(SHA-256 {DIGEST})" in message
    assert not list((folder / "source").iterdir()) and not (folder / "bundle").exists()


def test_a_published_hash_holds_from_the_first_time(net, table, capsys):
    file = table["net"].files[0]
    table["net"] = table["net"]._replace(files=(file._replace(sha256="1" * 64),))
    assert "what came has the SHA-256" in refused("net")
    table["net"] = table["net"]._replace(files=(file._replace(sha256=DIGEST),))
    find_or_convert("net")
    assert "no SHA-256 was published" not in capsys.readouterr().err


def test_a_file_put_there_by_hand(net, home, monkeypatch, tmp_path):
    monkeypatch.setenv("MOVQ_JAX_WEIGHTS", str(tmp_path / "mine"))
    place = tmp_path / "mine" / "models" / "net" / "source"
    place.mkdir(parents=True)
    (place / "net.ckpt").write_bytes(DATA)
    assert find_or_convert("net") == place.parent / "bundle"
    assert not net.asked and not home.exists()


def test_another_bundle_in_its_place(net, tiny_bundle, tiny_movq):
    bundle = find_or_convert("net")
    params = read_bundle(tiny_bundle).params
    params["quantize"]["codebook"]["rows"] = np.zeros((32, 4), np.float32)
    write_bundle(bundle, kind="tokenizer", params=params, model=tiny_movq, protocol={})
    assert "is not the one that was made of the published" in refused("net")


def test_no_network(net, table, home):
    file = NamedFile("net.ckpt", "http://127.0.0.1:9/net.ckpt")
    table["net"] = table["net"]._replace(files=(file,))
    message = refused("net")
    for part in ("net.ckpt of net", "models/net/source", file.url, "MOVQ_JAX_WEIGHTS"):
        assert part in message
    assert not list(home.rglob("*.ckpt"))


def test_a_web_page_is_no_file(net, table):
    (net.folder / "login.html").write_text("<html>")
    file = NamedFile("net.ckpt", f"{net.url}/login.html")
    table["net"] = table["net"]._replace(files=(file,))
    assert "what came is a web page" in refused("net")


def test_what_cannot_be_converted_leaves_no_bundle(net, monkeypatch):
    def convert(path):
        raise UserError(f"{path} is no checkpoint")

    with monkeypatch.context() as patch:
        patch.setattr(converting, "convert", convert)
        message = refused("net")
    assert "net cannot be converted: " in message and "to fetch it again" in message
    folder = named.named_folder("net")
    assert {path.name for path in folder.iterdir()} == {"source", "SHA256.json"}
    assert read_bundle("net").kind == "tokenizer" and net.asked == ["/net.ckpt"]


def test_a_conversion_that_is_killed_is_done_again(net, monkeypatch):
    def write(conversion, out, tokenizer=None):
        out.mkdir()
        (out / "config.json").write_text("{")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(converting, "write_converted", write)
        find_or_convert("net")
    assert read_bundle("net").kind == "tokenizer"


def test_what_killed_ones_left_is_cleared(net):
    folder = named.named_folder("net")
    name = f".{atomic._HOST}-{2**22 + 1}-01234567"  # no process has this number
    (folder / "source").mkdir(parents=True)
    (folder / "source" / f"{name}.tmp").write_bytes(b"half")
    (folder / name / "tokenizer").mkdir(parents=True)
    find_or_convert("net")
    assert not list(folder.rglob(".*"))


def test_two_at_once_make_one(net, monkeypatch):
    write = converting.write_converted

    def slower(conversion, out, tokenizer=None):
        made = write(conversion, out, tokenizer)
        other = named.named_folder("net") / "bundle"
        if not other.exists():
            shutil.copytree(out, other)  # another process, which was faster
        return made

    monkeypatch.setattr(converting, "write_converted", slower)
    assert read_bundle("net").kind == "tokenizer"
    folder = named.named_folder("net")
    left = {path.name for path in folder.iterdir()}
    assert left == {"source", "bundle", "SHA256.json"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": 3}'])
def test_a_record_that_is_damaged(net, text):
    folder = find_or_convert("net").parent
    (folder / "SHA256.json").write_text(text)
    assert "SHA256.json, the record of what was fetched, is damaged" in refused("net")


def test_a_place_that_cannot_be_written(net, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MOVQ_JAX_WEIGHTS", str(tmp_path / "file"))
    assert "cannot " in refused("net")


def test_a_file_of_another_project_from_its_name_to_its_bundle(table, web, home, fill):
    """With nothing in place of the conversion."""
    model = {
        "width": 32,
        "multipliers": [1, 2],
        "res_blocks": 1,
        "attention_factors": [2],
        "z_channels": 4,
        "dropout": 0.0,
        "dtype": "float32",
        "decoder_norm": {"name": "group"},
        "quantizer": {"name": "vq", "codebook_size": 16, "dim": 4, "beta": 0.25},
    }
    model["quantizer"]["legacy"] = True
    module = build_tokenizer(model)
    params = fill(module, np.zeros((1, 8, 8, 3), np.float32))
    arrays = flatten(params)
    published = {
        place.name: np.ascontiguousarray(to_theirs(arrays[ours], place.layout))
        for ours, place in vqgan_names(model).items()
    }
    safetensors.numpy.save_file(published, web.folder / "net.safetensors")
    file = NamedFile("net.safetensors", f"{web.url}/net.safetensors")
    table["net"] = NamedModel("a net", "https://page", "MIT", (file,))
    bundle = read_bundle("net")
    converted = flatten(bundle.params)
    assert converted.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(converted[name], array, name)
    assert build_tokenizer(bundle.model).codebook_sizes == (16,)
    source = bundle.protocol["source"]
    assert source["format"] == "vqgan" and source["name"] == "net"
    assert source["sha256"] == source["files"]["net.safetensors"]
