import json
import shutil

import numpy as np
import pytest

import movq_jax
from movq_jax.errors import UserError
from movq_jax.pretrained.bundle import read_bundle, write_bundle
from movq_jax.pretrained.loading import load_prior, load_tokenizer
from movq_jax.pretrained.prior import PretrainedPrior
from movq_jax.pretrained.prior_bundle import read_prior_bundle, write_prior_bundle
from movq_jax.pretrained.tokenizer import PretrainedTokenizer
from movq_jax.tools import command, encode


@pytest.fixture
def workdir(tiny_prior_bundle, tmp_path):
    """A copy of the prior's workdir, to be changed."""
    shutil.copytree(tiny_prior_bundle, tmp_path / "run")
    return tmp_path / "run"


def test_the_bundle_says_what_it_is(tiny_bundle, tiny_prior_bundle):
    assert isinstance(movq_jax.load(tiny_bundle), PretrainedTokenizer)
    prior = movq_jax.load(tiny_prior_bundle / "model")
    assert isinstance(prior, PretrainedPrior)
    tokenizer = movq_jax.load(tiny_prior_bundle / "model" / "tokenizer")
    assert tokenizer.fingerprint == prior.tokenizer.fingerprint
    assert tokenizer.fingerprint == movq_jax.load(tiny_bundle).fingerprint


def test_one_kind_alone(tiny_bundle, tiny_prior_bundle):
    assert load_tokenizer(tiny_bundle).factor == 4
    assert load_prior(tiny_prior_bundle).grid == (4, 4)
    with pytest.raises(UserError, match="is a prior, not a tokenizer: its tokenizer"):
        load_tokenizer(tiny_prior_bundle)
    with pytest.raises(UserError, match="is a tokenizer, which draws nothing new"):
        load_prior(tiny_bundle)


def test_a_tool_that_needs_a_tokenizer_says_so(tiny_prior_bundle, tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(b"")
    argv = [f"--model={tiny_prior_bundle}", f"--input={tmp_path}/a.png"]
    assert command.run(encode.main, [*argv, f"--output={tmp_path}/c.npz"]) == 2
    assert (
        "is a prior, not a tokenizer: its tokenizer lies in" in capsys.readouterr().err
    )


def test_a_micro_batch_of_nothing_is_refused(tiny_prior_bundle):
    for value in (0, 2.0, True):
        with pytest.raises(UserError, match="micro_batch is "):
            movq_jax.load(tiny_prior_bundle, micro_batch=value)


def test_writing_what_was_read_changes_nothing(workdir, tmp_path):
    prior, tokenizer = read_prior_bundle(workdir)
    again = write_prior_bundle(
        tmp_path / "again",
        params=prior.params,
        model=prior.model["prior"],
        tokens=prior.model["tokens"],
        protocol=prior.protocol,
        tokenizer=tokenizer,
    )
    assert again == prior.fingerprint
    for path in (workdir / "model").rglob("*.*"):
        other = tmp_path / "again" / path.relative_to(workdir / "model")
        assert other.read_bytes() == path.read_bytes()


def test_a_tokenizer_in_the_first_format_keeps_its_fingerprint(workdir, tmp_path):
    prior, tokenizer = read_prior_bundle(workdir)
    codes = np.arange(8, dtype=np.float32).reshape(4, 2)
    folder = tmp_path / "first" / "model"
    parts = {"params": {"quantize": {"codebook": codes}}, "model": {}, "protocol": {}}
    write_bundle(folder, kind="tokenizer", **parts)
    record = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(record | {"format_version": 1}))
    first = read_bundle(folder)
    assert "rows" in first.params["quantize"]["codebook"]
    write_prior_bundle(
        tmp_path / "again",
        params=prior.params,
        model=prior.model["prior"],
        tokens=prior.model["tokens"] | {"fingerprint": first.fingerprint},
        protocol=prior.protocol,
        tokenizer=first,
    )
    again = read_prior_bundle(tmp_path / "again").tokenizer
    assert again.fingerprint == first.fingerprint and again.format_version == 1


def test_the_wrong_tokenizer_is_not_written(workdir, tmp_path):
    prior, tokenizer = read_prior_bundle(workdir)
    with pytest.raises(UserError, match="was trained on the indices of the tokenizer"):
        write_prior_bundle(
            tmp_path / "again",
            params=prior.params,
            model=prior.model["prior"],
            tokens=prior.model["tokens"] | {"fingerprint": "0" * 64},
            protocol=prior.protocol,
            tokenizer=tokenizer,
        )
    assert not (tmp_path / "again").exists()


def test_another_tokenizer_is_refused(workdir, tiny_bundle):
    path = workdir / "model" / "tokenizer" / "config.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"fingerprint": "0" * 64}))
    with pytest.raises(
        UserError, match="without a tokenizer that can be used: .*chang"
    ):
        movq_jax.load(workdir)
    shutil.rmtree(path.parent)
    with pytest.raises(UserError, match="without a tokenizer that can be used: there"):
        movq_jax.load(workdir)
    assert read_bundle(workdir).kind == "prior"
