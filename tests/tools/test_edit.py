import json

import numpy as np
import pytest
from PIL import Image

import movq_jax
from movq_jax.tools import command, edit, edit_work, sampling_flags


@pytest.fixture(scope="module")
def prior(tiny_prior_bundle):
    """A masked prior of 3 classes: a window is 16 x 16 pixels, a token 4 x 4."""
    return movq_jax.load(tiny_prior_bundle, micro_batch=2)


@pytest.fixture
def loaded(prior, monkeypatch):
    """Let the command have it without reading and compiling it again."""
    monkeypatch.setattr(sampling_flags, "load_prior", lambda path, micro_batch: prior)
    return prior


def picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed, (name, size) in enumerate(
        {"a": (16, 16), "b": (15, 13), "wide": (16, 30)}.items()
    ):
        Image.fromarray(picture(*size, seed)).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def run(word, source, out, *flags):
    argv = [word, "--model=runs/p", f"--input={source}", f"--output={out}", *flags]
    return command.run(edit.main, argv)


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def results(out):
    return {
        path.relative_to(out / "results").with_suffix("").as_posix(): read(path)
        for path in (out / "results").rglob("*.png")
    }


def test_inpainting_by_boxes(pictures, out, loaded, capsys):
    flags = ["--box=1,2,6,5", "--box=4,4,12,7", "--num=2", "--temperature=2", "--json"]
    assert run("inpaint", pictures, out, *flags) == 0
    captured = capsys.readouterr()
    assert "wrote 2 of each of 3 pictures" in captured.err
    made = results(out)
    assert sorted(made) == ["a/1", "a/2", "b/1", "b/2", "wide/1", "wide/2"]
    for name, image in made.items():
        original = read(pictures / f"{name[:-2]}.png")
        mask = np.zeros(original.shape[:2], bool)
        mask[2:5, 1:6] = mask[4:7, 4:12] = True
        np.testing.assert_array_equal(image[~mask], original[~mask])
        assert (image[mask] != original[mask]).any()
    assert (made["a/1"] != made["a/2"]).any()
    assert read(out / "overview.png").ndim == 3

    record = json.loads(captured.out)
    assert record == json.loads((out / "edit.json").read_text())
    assert record["edit"] == "inpaint" and record["options"] == {"temperature": 2.0}
    assert record["settings"]["box"] == [[1, 2, 6, 5], [4, 4, 12, 7]]
    assert record["model"]["fingerprint"] == loaded.fingerprint
    first = record["pictures"][0]
    assert (first["tokens"], first["tokens_drawn"], first["windows"]) == (16, 5, 1)
    assert first["results"][1]["file"] == str(out / "results" / "a" / "2.png")


def test_inpainting_by_a_mask_and_its_size(pictures, out, loaded, tmp_path, capsys):
    mask = np.zeros((16, 16), np.uint8)
    mask[3:9, 0:5] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    flags = [f"--mask={tmp_path / 'm.png'}", "--blend=0"]
    assert run("inpaint", pictures / "a.png", out, *flags) == 0
    made, original = results(out)["a/1"], read(pictures / "a.png")
    np.testing.assert_array_equal(made[mask == 0], original[mask == 0])
    capsys.readouterr()
    assert run("inpaint", pictures / "b.png", out, *flags) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "is 16 x 16, but" in error
    assert run("inpaint", pictures, out, *flags) == 4
    error = capsys.readouterr().err
    assert "b.png is 13 x 15" in error and "error: 2 of 3 files refused" in error
    record = json.loads((out / "edit.json").read_text())
    assert len(record["pictures"]) == 1 and len(record["refused"]) == 2


def test_a_mask_among_the_pictures_is_none_of_them(pictures, out, loaded, capsys):
    for name in ("b", "wide"):
        (pictures / f"{name}.png").unlink()
    mask = pictures / "mask.png"
    Image.fromarray(np.eye(16, dtype=bool)).save(mask)
    assert run("inpaint", pictures, out, f"--mask={mask}") == 0
    assert sorted(results(out)) == ["a/1"]
    assert run("inpaint", mask, out, f"--mask={mask}") == 2
    assert "is the mask" in capsys.readouterr().err


def test_inpainting_what_is_transparent(tmp_path, out, loaded):
    image = picture(16, 16)
    alpha = np.full((16, 16, 1), 255, np.uint8)
    alpha[5:11, 5:11] = 0
    Image.fromarray(np.concatenate([image, alpha], axis=2)).save(tmp_path / "a.png")
    assert run("inpaint", tmp_path / "a.png", out, "--mask=alpha") == 0
    made = results(out)["a/1"]
    opaque = alpha[:, :, 0] == 255
    np.testing.assert_array_equal(made[opaque], image[opaque])
    assert made.shape == (16, 16, 3)


def test_nothing_masked_comes_back_untouched(pictures, out, loaded, tmp_path, capsys):
    Image.new("L", (16, 16)).save(tmp_path / "m.png")
    mask = f"--mask={tmp_path / 'm.png'}"
    assert run("inpaint", pictures / "a.png", out, mask) == 0
    assert "a.png: nothing is masked" in capsys.readouterr().err
    np.testing.assert_array_equal(results(out)["a/1"], read(pictures / "a.png"))


def test_everything_masked_is_an_ordinary_sample(pictures, out, loaded, capsys):
    flags = ["--box=0,0,16,16", "--num=2", "--classes=dog", "--seed=5"]
    assert run("inpaint", pictures / "a.png", out, *flags) == 0
    assert "all of it is masked" in capsys.readouterr().err
    expected = loaded.tokenizer.decode(loaded.sample(2, labels="dog", seed=5))
    made = results(out)
    np.testing.assert_array_equal(made["a/dog-1"], expected[0])
    np.testing.assert_array_equal(made["a/dog-2"], expected[1])


def test_outpainting(pictures, out, loaded):
    flags = ["--left=14", "--bottom=1", "--num=2"]
    assert run("outpaint", pictures / "b.png", out, *flags) == 0
    made, original = results(out), read(pictures / "b.png")
    assert sorted(made) == ["b/1", "b/2"]
    for image in made.values():
        assert image.shape == (16, 27, 3)
        np.testing.assert_array_equal(image[:15, 14:], original)
    record = json.loads((out / "edit.json").read_text())
    assert record["pictures"][0]["windows"] == 3


def test_a_canvas_above_max_side_is_refused(pictures, out, loaded, capsys):
    flags = ["--left=20", "--max-side=40"]
    assert run("outpaint", pictures / "wide.png", out, *flags) == 2
    error = capsys.readouterr().err
    assert "wide.png would become 50 x 16, above --max-side=40" in error


def test_variations_for_classes(pictures, out, loaded):
    flags = ["--classes=sea horse,0", "--num=2", "--keep=0.25"]
    assert run("variations", pictures / "b.png", out, *flags) == 0
    made = results(out)
    assert sorted(made) == ["b/cat-1", "b/cat-2", "b/sea_horse-1", "b/sea_horse-2"]
    assert all(image.shape == (15, 13, 3) for image in made.values())
    record = json.loads((out / "edit.json").read_text())
    labels = [result["label"] for result in record["pictures"][0]["results"]]
    assert labels == [2, 2, 0, 0] and record["pictures"][0]["tokens_drawn"] == 12


def test_a_result_does_not_depend_on_how_the_others_are_drawn(pictures, out, loaded):
    run("variations", pictures / "a.png", out, "--num=3")
    alone = results(out)
    run("variations", pictures, out, "--num=3")
    for name, image in alone.items():
        np.testing.assert_array_equal(results(out)[name], image)


def test_the_figure_of_a_few_tokens(pictures, out, loaded):
    assert run("reconstruct", pictures / "a.png", out, "--keep=0.2") == 0
    names = {f"a/{n}" for n in ("1", "kept", "top1")}
    assert set(results(out)) == names
    record = json.loads((out / "edit.json").read_text())
    assert record["options"] == {"steps": 8} and record["settings"] == {"keep": 0.2}


def test_from_the_bundle(pictures, out, tiny_prior_bundle):
    argv = ["inpaint", f"--model={tiny_prior_bundle}", f"--input={pictures / 'a.png'}"]
    argv += [f"--output={out}", "--box=0,0,4,4", "--micro-batch=2"]
    assert command.run(edit.main, argv) == 0
    assert sorted(results(out)) == ["a/1"]


def test_priors_that_cannot_fill_holes(pictures, out, tiny_ar_bundle, capsys):
    argv = ["inpaint", f"--model={tiny_ar_bundle}", f"--input={pictures}"]
    assert command.run(edit.main, [*argv, f"--output={out}", "--box=0,0,4,4"]) == 2
    error = capsys.readouterr().err
    assert "autoregressive" in error and "movq complete" in error


def test_a_tokenizer_draws_nothing(pictures, out, tiny_bundle, capsys):
    argv = ["variations", f"--model={tiny_bundle}", f"--input={pictures}"]
    assert command.run(edit.main, [*argv, f"--output={out}"]) == 2
    assert "is a tokenizer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["inpant"], "no 'inpant' (did you mean 'inpaint'?)"),
        (["inpaint", "--box=1,1,1,4"], "'1,1,1,4' is empty"),
        (["inpaint", "--box=1,1,4"], "is no box: give four whole numbers"),
        (["inpaint"], "one of the arguments --mask --box is required"),
        (["inpaint", "--box=0,0,1,1", "--mask=a"], "not allowed with argument"),
        (["inpaint", "--mask=none.png"], "cannot read none.png"),
        (["inpaint", "--box=0,0,1,1", "--blend=-1"], "'-1' is not a whole number"),
        (["inpaint", "--box=0,0,1,1", "--margin=x"], "'x' is not a whole number"),
        (["inpaint", "--keep=0.5"], "unknown flag --keep"),
        (["outpaint"], "nothing to add: give --left"),
        (["outpaint", "--left=0"], "nothing to add: give --left"),
        (["outpaint", "--left=9999999"], "'9999999' is not a whole number from 0 to"),
        (["variations", "--keep=1.5"], "'1.5' is not a share from 0 to 1"),
        (["variations", "--keep=nan"], "'nan' is not a share from 0 to 1"),
        (["variations", "--num=0"], "'0' is not a positive whole number"),
        (["variations", "--steps=0"], "'0' is not a positive whole number"),
        (["variations", "--classes=cat,,dog"], "there is no class ''"),
        (["variations", "--classes=cot"], "did you mean 'cat'?"),
        (["variations", "--classes=7"], "there is no class 7"),
        (["variations", "--guidance=2"], "give --classes"),
        (["variations", "--top-k=1,2,3"], "--top-k has 3 values"),
        (["variations", "--schedule=cosin"], "cosin"),
        (["variations", "--order=confidenc"], "confidenc"),
    ],
)
def test_wrong_flags(pictures, out, loaded, capsys, argv, message):
    assert run(argv[0], pictures, out, *argv[1:]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and error.count("\n") == 0
    assert not (out / "results").exists()


def test_classes_of_an_unconditional_prior(pictures, out, loaded, monkeypatch, capsys):
    monkeypatch.setattr(loaded, "num_classes", 0)
    assert run("variations", pictures, out, "--classes=cat") == 2
    assert "unconditional" in capsys.readouterr().err


def test_help_names_the_edits(capsys):
    for argv in ([], ["--help"]):
        assert command.run(edit.main, argv) == 0
        assert "movq edit outpaint" in capsys.readouterr().out
    assert command.run(edit.main, ["inpaint", "--help"]) == 0
    assert "--blend" in capsys.readouterr().out


def test_pictures_that_cannot_be_used(pictures, out, loaded, capsys):
    (pictures / "b.png").write_text("no image")
    assert run("variations", pictures, out, "--keep=0.9") == 4
    assert "b.png is not an image" in capsys.readouterr().err
    assert sorted(results(out)) == ["a/1", "wide/1"]
    assert run("variations", pictures / "b.png", out) == 2
    for name in ("a", "wide"):
        (pictures / f"{name}.png").write_text("no image")
    assert run("variations", pictures, out) == 2
    assert "none of the 3 pictures could be used" in capsys.readouterr().err


def test_memory_may_be_short(pictures, out, loaded, monkeypatch, capsys):
    whole = edit_work.Editor.variations

    def short(self, image, *args):
        if image.shape[1] == 30:
            raise MemoryError
        return whole(self, image, *args)

    monkeypatch.setattr(edit_work.Editor, "variations", short)
    assert run("variations", pictures, out, "--keep=0.9") == 4
    assert "wide.png: it is 30 x 16, and there is not" in capsys.readouterr().err


def test_inputs_are_never_overwritten(pictures, loaded, capsys):
    nested = pictures / "results" / "a"
    nested.mkdir(parents=True)
    (pictures / "a.png").rename(nested / "1.png")
    (pictures / "b.png").rename(pictures / "a.png")
    before = (nested / "1.png").read_bytes()
    assert run("variations", pictures / "a.png", pictures) == 2
    assert "is not a result of movq" in capsys.readouterr().err
    assert (nested / "1.png").read_bytes() == before


def test_a_second_run_gives_the_same_files(pictures, out, loaded):
    flags = ["--num=2", "--keep=0.1"]
    assert run("variations", pictures, out, *flags) == 0
    before = {path: path.read_bytes() for path in out.rglob("*.png")}
    assert run("variations", pictures, out, *flags) == 0
    assert {path: path.read_bytes() for path in out.rglob("*.png")} == before
