"""`movq evaluate` from flags to records; its numbers are tested where they are made."""

import json
import os
import pickle
import zipfile

import numpy as np
import pytest
from PIL import Image, ImageFilter

from movq_jax.errors import UserError
from movq_jax.evaluation.metrics import pixels
from movq_jax.evaluation.metrics.lpips_metric import LpipsMetric
from movq_jax.evaluation.squeezenet_fd import SqueezeNetFeatures
from movq_jax.pretrained import inception
from movq_jax.pretrained.lpips import PUBLISHED
from movq_jax.tools import command, compare, evaluate

SIDE = 16


def picture(number, size=SIDE):
    """uint8 [size, size, 3] with some structure, another for each number."""
    y, x = np.mgrid[:size, :size] / size
    rng = np.random.default_rng(number)
    waves = [np.sin(9 * rng.random() * x + 7 * rng.random() * y) for _ in range(3)]
    return np.uint8(np.stack(waves, axis=-1) * 100 + 128)


@pytest.fixture
def folders(tmp_path):
    """Two folders: 6 pictures, and the same with some noise and other suffixes."""
    for name in ("made", "photos"):
        (tmp_path / name).mkdir()
    for number in range(6):
        original = picture(number)
        noisy = original ^ np.uint8(number + 1)
        Image.fromarray(original).save(tmp_path / "photos" / f"{number}.png")
        Image.fromarray(noisy).save(tmp_path / "made" / f"{number}.bmp")
    return tmp_path


@pytest.fixture
def run(folders, capsys):
    """A function that runs the command: exit code, stdout, stderr."""

    def run_command(*flags, images="made", reference="photos", whole=True):
        argv = list(flags)
        argv += [f"--images={folders / images}"] if images else []
        argv += [f"--reference={folders / reference}"] if reference else []
        argv += ["--image-size=whole"] if whole else []
        code = command.run(evaluate.main, argv)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_command


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_two_folders(run, folders):
    where = folders / "out" / "record.json"
    code, text, err = run("--metrics=psnr,ssim,l1", f"--json={where}")
    assert code == 0 and "error" not in err
    record = json.loads(where.read_text())
    assert list(record["metrics"]) == ["psnr", "ssim", "l1"]
    expected = [
        float(
            pixels.psnr(
                read(folders / "photos" / f"{i}.png"),
                read(folders / "made" / f"{i}.bmp"),
            )
        )
        for i in range(6)
    ]
    psnr = record["metrics"]["psnr"]
    assert psnr["value"] == pytest.approx(np.mean(expected))
    assert psnr["low"] < psnr["value"] < psnr["high"] and psnr["count"] == 6
    assert psnr["higher_is_better"] and not record["metrics"]["l1"]["higher_is_better"]
    assert record["tool"] == "evaluate" and record["num_images"] == 6
    assert record["protocol"]["name"] == "default"
    assert record["protocol"]["resize"] == {"name": "none"}
    assert record["images"]["name"] == str(folders / "made")
    assert psnr["reference"] == "pairs" and list(record["reference"]) == ["pairs"]
    assert record["reference"]["pairs"]["name"] == str(folders / "photos")
    assert record["reference"]["pairs"]["count"] == 6
    assert len(record["reference"]["pairs"]["fingerprint"]) == 64
    assert record["refused"] == [] and record["networks"] == {}
    assert f"{psnr['value']:.3f}" in text and "PSNR" in text and "higher" in text
    assert command.run(compare.main, [str(where), str(where)]) == 0


def test_psnr_and_ssim_are_the_default_and_json_may_be_printed(run):
    code, out, err = run("--json")
    assert code == 0 and list(json.loads(out)["metrics"]) == ["psnr", "ssim"]
    assert "protocol default, 6 images" in err


def test_an_npz_is_as_good_as_a_folder(run, folders):
    for name in ("photos", "made"):
        files = sorted((folders / name).iterdir())
        np.savez(folders / f"{name}.npz", arr_0=np.stack([read(f) for f in files]))
    _, by_folder, _ = run("--json")
    code, by_npz, _ = run("--json", images="made.npz", reference="photos.npz")
    assert code == 0
    first, second = json.loads(by_folder), json.loads(by_npz)
    assert first["metrics"] == second["metrics"]
    digits = [r["reference"]["pairs"]["fingerprint"] for r in (first, second)]
    assert digits[0] == digits[1]


def test_the_page_has_the_worst(run, folders):
    page = folders / "page.html"
    assert run("--metrics=psnr", f"--html={page}")[0] == 0
    text = page.read_text()
    assert "data:image/png;base64," in text and "5   " in text and "http" not in text


def test_several_protocols_in_one_pass(run, monkeypatch):
    from movq_jax.evaluation import image_sets

    opened = []
    decode = image_sets.decode_image
    monkeypatch.setattr(
        image_sets, "decode_image", lambda path: opened.append(path) or decode(path)
    )
    code, out, _ = run(
        "--protocol=default,pytorch-fid",
        "--image-size=8",
        "--metrics=psnr",
        "--json",
        whole=False,
    )
    assert code == 0 and len(opened) == 12
    results = json.loads(out)["results"]
    assert [r["protocol"]["name"] for r in results] == ["default", "pytorch_fid"]
    for record in results:
        assert record["protocol"]["size"] == 8
        assert "different protocols are not to be compared" in record["warnings"][-1]


def test_the_first_images(run, folders):
    code, out, _ = run("--max-images=2", "--metrics=l1", "--json")
    assert code == 0 and json.loads(out)["num_images"] == 2
    (folders / "made" / "5.bmp").unlink()
    assert run("--max-images=3", "--metrics=l1")[0] == 0


def test_images_that_a_protocol_enlarges_are_warned_of(run):
    code, text, _ = run("--metrics=l1", "--image-size=20", whole=False)
    assert code == 0
    assert "12 images were smaller than 20 pixels and enlarged" in text
    assert "6 pairs were resized or cut to 20 x 20: --image-size=whole" in text


def test_partners_that_are_enlarged_are_counted(run, folders):
    for number in range(6):
        path = folders / "made" / f"{number}.bmp"
        Image.fromarray(picture(number, size=20)).save(path)
    code, text, _ = run("--metrics=l1", "--image-size=20", whole=False)
    assert code == 0 and "6 images were smaller than 20 pixels" in text


def test_missing_partners(run, folders):
    (folders / "made" / "3.bmp").unlink()
    code, _, err = run()
    assert code == 2 and "has no partner for 3 of" in err
    (folders / "photos" / "2.png").unlink()
    code, _, err = run()
    assert code == 2 and "photos has no partner for 2 of" in err


def test_pairs_of_two_sizes(run, folders):
    Image.fromarray(picture(0, size=12)).save(folders / "made" / "0.bmp")
    code, _, err = run()
    assert code == 2 and "0 is 12 x 12 and its partner 16 x 16" in err
    assert run("--metrics=l1", "--image-size=8", whole=False)[0] == 0


def test_files_that_are_no_images_are_refused(run, folders):
    (folders / "made" / "1.bmp").write_bytes(b"no image")
    (folders / "photos" / "2.png").write_bytes(b"no image")
    code, out, err = run("--json", "--metrics=l1")
    record = json.loads(out)
    assert code == 4 and "2 of 6 files refused" in err
    assert record["num_images"] == 4 and record["metrics"]["l1"]["count"] == 4
    assert len(record["refused"]) == 2


def test_nothing_but_bad_files(run, folders):
    for path in (folders / "made").iterdir():
        path.write_bytes(b"no image")
    code, _, err = run()
    assert code == 4 and "6 of 6 files refused" in err


@pytest.mark.parametrize(
    ("flags", "places", "said"),
    [
        (["--metrics=psrn"], {}, "no metric 'psrn'; did you mean 'psnr'"),
        (["--protocol=tiktok"], {}, "did you mean 'titok'"),
        ([], {"images": "none"}, "none does not exist"),
        ([], {"reference": "none.npz"}, "cannot read"),
        ([], {"reference": None}, "psnr compares images with a reference"),
        (["--metrics=fid"], {"reference": None}, "fid compares images with a ref"),
        ([], {"images": None}, "what is to be judged"),
        (["--metrics=nll"], {}, "nll is of a prior"),
        (["--steps=5"], {}, "--steps tells how a prior draws"),
        (["--num=5"], {}, "--num is of a prior's samples"),
        (["--split=train"], {}, "are of a dataset: give --dataset"),
        (["--dataset=a"], {}, "one too many"),
        (["--save-statistics=x.txt"], {}, "must end with .npz"),
        (["--metrics=kid"], {}, "kid needs at least 1000 images in each set"),
        (["--metrics="], {}, "--metrics has an empty value"),
        (["--seed=3"], {}, "--seed tells how a prior draws: give its --model"),
        (["--image-size=100000"], {}, "100000 is above 16384"),
        (["--metrics=kid", "--kid-subset=1"], {}, "--kid-subset is at least 2"),
        (
            ["--metrics=is", "--protocol=clean"],
            {},
            "is needs at least 10 images, and there are 6",
        ),
        (["--metrics=fid", "--per-image=x.csv"], {}, "no numbers of single images"),
        (["--per-image=x", "--protocol=clean,adm"], {}, "--per-image is of one proto"),
        (["--save-statistics=x.npz"], {"reference": None}, "which statistics?"),
        (
            ["--save-statistics=x.npz", "--metrics=psnr,is"],
            {},
            "there are no statistics of psnr, is to save",
        ),
        (["--html=x.html", "--json=x.html"], {}, "--html and --json are one file"),
    ],
)
def test_what_cannot_be_done(run, flags, places, said):
    code, _, err = run(*flags, **places)
    assert code == 2 and said in err
    assert "Traceback" not in err


def test_results_are_not_written_over_inputs(run, folders):
    np.savez(folders / "photos.npz", arr_0=np.stack([picture(i) for i in range(6)]))
    inputs = {"made/0.bmp": {}, "photos/3.png": {}, "photos.npz": {}}
    inputs["photos.npz"] = {"reference": "photos.npz"}
    for name, places in inputs.items():
        before = (folders / name).read_bytes()
        for flag in ("--json", "--html", "--per-image"):
            code, _, err = run(f"{flag}={folders / name}", **places)
            assert code == 2 and f"{flag} would overwrite the input" in err
        assert (folders / name).read_bytes() == before


def test_the_first_of_pairs_that_are_sorted_otherwise(run, folders):
    """By path `a-b.bmp` is before `a.bmp`, but `a.` before `a-`, without suffixes."""
    for name in ("made", "photos"):
        for path in (folders / name).iterdir():
            path.unlink()
    for number, name in enumerate(("0", "1", "2", "3")):
        Image.fromarray(picture(number)).save(folders / "photos" / f"{name}.png")
    for number in (2, 3):
        Image.fromarray(picture(number)).save(folders / "made" / f"{number}.png")
    code, out, _ = run("--metrics=l1", "--max-images=2", "--json")
    assert code == 0 and json.loads(out)["metrics"]["l1"]["value"] == 0


def test_the_numbers_of_each_image(run, folders):
    table = folders / "out" / "each.csv"
    code, out, _ = run("--metrics=l1,psnr", f"--per-image={table}", "--json")
    rows = [line.split(",") for line in table.read_text().splitlines()]
    assert code == 0 and rows[0] == ["name", "l1", "psnr"]
    assert [row[0] for row in rows[1:]] == [f"{i}" for i in range(6)]
    mean = np.mean([float(row[1]) for row in rows[1:]])
    assert mean == pytest.approx(json.loads(out)["metrics"]["l1"]["value"])


def test_a_result_that_cannot_be_written_costs_nothing(run, folders, monkeypatch):
    def fail(*_, **__):
        raise UserError("the disk is full")

    monkeypatch.setattr(command, "write_text", fail)
    code, out, err = run("--metrics=l1", f"--json={folders / 'a.json'}")
    assert code == 2 and "the disk is full" in err and "L1, of 0..1" in out


def test_a_name_that_is_no_utf8(run, folders):
    name = os.fsdecode(b"\xff\n")
    for folder in ("made", "photos"):
        (folders / folder / "4.png").unlink(missing_ok=True)
        Image.fromarray(picture(3)).save(folders / folder / f"{name}.png")
    (folders / "made" / "4.bmp").unlink()
    page, table = folders / "a.html", folders / "a.csv"
    flags = [f"--html={page}", f"--per-image={table}", "--metrics=l1"]
    assert run(*flags)[0] == 0
    page.read_bytes().decode("utf-8")
    assert b"\xff\n" in table.read_bytes()


def test_images_are_matched_with_a_shuffled_split(run, folders, monkeypatch):
    class Split(list):
        name = "photos validation"
        has_file_names = True

    numbers = (4, 0, 5, 2, 1, 3)
    split = Split(
        {
            "image": (folders / "photos" / f"{i}.png").read_bytes(),
            "filename": f"{i}.png",
            "label": -1,
        }
        for i in numbers
    )
    monkeypatch.setattr("movq_jax.tools.evaluate_plan.open_split", lambda *_: split)
    flags = ["--metrics=l1,psnr", "--json"]
    _, expected, _ = run(*flags)
    code, found, _ = run(*flags, "--dataset=photos", reference=None)
    first, second = json.loads(expected), json.loads(found)
    assert code == 0 and first["metrics"] == second["metrics"]
    assert second["reference"]["pairs"]["name"] == "photos validation"
    Split.has_file_names = False
    code, _, err = run(*flags, "--dataset=photos", reference=None)
    assert code == 2 and "its order is not known to be that of other images" in err


def test_one_image_has_no_distance(run, folders):
    for number in range(1, 6):
        (folders / "made" / f"{number}.bmp").unlink()
    code, _, err = run("--metrics=squeezenet_fd", "--squeezenet=none.npz")
    assert code == 2 and "squeezenet_fd needs at least 2 images" in err


def test_weights_that_are_not_there(run):
    code, _, err = run("--metrics=squeezenet_fd", "--squeezenet=none.npz")
    assert code == 2 and "none.npz" in err and "Traceback" not in err


@pytest.fixture
def lpips_alex(tmp_path, publish_file, write_torch):
    """A folder of files like those of LPIPS with AlexNet, of random numbers."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "lpips"
    folder.mkdir()
    shapes, inputs = {}, 3
    for index, width, side in (
        (0, 64, 11),
        (3, 192, 5),
        (6, 384, 3),
        (8, 256, 3),
        (10, 256, 3),
    ):
        shapes[f"features.{index}.weight"] = (width, inputs, side, side)
        shapes[f"features.{index}.bias"] = (width,)
        inputs = width
    numbers = {
        name: rng.standard_normal(shape, np.float32) / np.prod(shape[1:]) ** 0.5
        for name, shape in shapes.items()
    }
    widths = (64, 192, 384, 256, 256)
    heads = {f"lin{i}.model.1.weight": (1, w, 1, 1) for i, w in enumerate(widths)}
    numbers |= {name: rng.random(shape) for name, shape in heads.items()}
    files = PUBLISHED["lpips_alex"]
    publish_file(write_torch(folder / files.trunk_file, shapes, **numbers))
    publish_file(write_torch(folder / files.heads_file, heads, **numbers))
    return folder


def test_lpips_end_to_end(run, folders, lpips_alex):
    sets = {}
    for name in ("photos", "made"):
        (folders / "large" / name).mkdir(parents=True)
        sets[name] = np.stack([picture(number, size=64) for number in range(3)])
    sets["made"] ^= np.uint8([[[[1]]], [[[8]]], [[[64]]]])
    for name, images in sets.items():
        for number, image in enumerate(images):
            Image.fromarray(image).save(folders / "large" / name / f"{number}.png")
    places = {"images": "large/made", "reference": "large/photos"}
    flags = ["--metrics=lpips_alex", f"--lpips={lpips_alex}", "--json"]
    code, out, _ = run(*flags, **places)
    record = json.loads(out)
    metric = LpipsMetric("lpips_alex", lpips_alex)
    expected = metric(sets["photos"], sets["made"])
    assert 0 < expected[0] < expected[1] < expected[2]
    found = record["metrics"]["lpips_alex"]
    assert code == 0 and found["count"] == 3 and not found["higher_is_better"]
    assert found["value"] == pytest.approx(expected.mean(), rel=1e-6)
    assert found["low"] < found["value"] < found["high"]
    assert record["networks"] == {"lpips_alex": metric.fingerprint}
    # Another file of that name is refused.
    trunk = lpips_alex / PUBLISHED["lpips_alex"].trunk_file
    trunk.write_bytes(trunk.read_bytes() + b"\0")
    code, _, err = run(*flags, **places)
    assert code == 2 and f"{trunk} is damaged, or is not what was published" in err


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_with_code_in_them(run, folders, zipped):
    bomb = folders / "executed"

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(bomb),)

    data = pickle.dumps({"fc.bias": Bomb()}, protocol=2)
    path = folders / inception.FILE
    path.write_bytes(data)
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", data)
    code, _, err = run("--metrics=fid", f"--inception={path}")
    assert code == 2 and ".mkdir', and only files of tensors are read" in err
    # In the folder of published weights it is not even opened.
    code, _, err = run("--metrics=fid", f"--inception={folders}")
    assert code == 2 and "is not what was published: its SHA-256 is" in err
    assert "Traceback" not in err and not bomb.exists()
    pickle.loads(data)
    assert bomb.exists()  # that is what would have happened


def test_images_of_one_colour(run, folders, random_squeezenet):
    grey = np.full((SIDE, SIDE, 3), 90, np.uint8)
    for path in [*folders.glob("photos/*"), *folders.glob("made/*")]:
        Image.fromarray(grey).save(path)
    flags = [f"--squeezenet={random_squeezenet}", "--max-images=3"]
    flags += ["--metrics=psnr,ssim,squeezenet_fd", "--json"]
    code, out, err = run(*flags)
    found = json.loads(out)["metrics"]
    assert code == 0 and "3 exact pairs are left out of the mean" in err
    assert found["psnr"]["value"] is None and found["psnr"]["left_out"] == 3
    assert found["ssim"]["value"] == pytest.approx(1, abs=1e-12)
    assert found["squeezenet_fd"]["value"] == pytest.approx(0, abs=1e-9)
    for path in folders.glob("made/*"):
        Image.fromarray(grey + np.uint8(51)).save(path)
    code, out, _ = run(*flags)
    found = json.loads(out)["metrics"]
    assert code == 0 and found["psnr"]["value"] == pytest.approx(20 * np.log10(5))
    assert 0 < found["ssim"]["value"] < 1
    # There is no covariance: all that is left is how far the two means are apart.
    features = SqueezeNetFeatures(random_squeezenet)
    a, b = features([grey, grey + np.uint8(51)]).astype(np.float64)
    expected = np.sum((a - b) ** 2)
    assert found["squeezenet_fd"]["value"] == pytest.approx(expected, rel=1e-6)


def test_statistics_of_other_weights(run, folders, random_squeezenet):
    saved = folders / "saved.npz"
    flags = ["--metrics=squeezenet_fd", "--max-images=2"]
    ours = f"--squeezenet={random_squeezenet}"
    save = f"--save-statistics={saved}"
    code, out, _ = run(*flags, ours, save, images="photos", reference=None)
    assert code == 0 and "metric" not in out
    assert f"the statistics of 2 images are in {saved}" in out
    assert run(*flags, ours, reference=saved)[0] == 0
    with np.load(random_squeezenet) as archive:
        arrays = dict(archive)
    arrays["conv1.bias"] += 1
    np.savez(folders / "other.npz", **arrays)
    other = f"--squeezenet={folders / 'other.npz'}"
    code, _, err = run(*flags, other, reference=saved)
    assert code == 2 and "other weights of squeezenet" in err


def test_statistics_that_are_none(run, folders):
    bad = np.full((2048, 2048), np.nan, np.float32)
    np.savez(folders / "nan.npz", mu=np.zeros(2048), sigma=bad)
    code, _, err = run("--metrics=fid", reference="nan.npz")
    assert code == 2 and "'mu' and 'sigma' are not finite" in err
    np.savez(folders / "pickled.npz", mu=np.asarray([{}]), sigma=np.asarray([{}]))
    code, _, err = run("--metrics=fid", reference="pickled.npz")
    assert code == 2 and "'mu' cannot be read" in err and "Traceback" not in err
    np.savez(folders / "few.npz", mu=np.zeros(2048), sigma=np.zeros((2048, 2048)))
    code, _, err = run("--metrics=psnr", reference="few.npz")
    assert code == 2 and "has statistics alone" in err
    np.savez(folders / "other.npz", mu=np.zeros(768), sigma=np.eye(768))
    code, _, err = run("--metrics=fid", reference="other.npz")
    assert code == 2 and "must be [2048] and [2048, 2048], not [768]" in err
    assert "another network's?" in err


def test_a_tokenizers_reconstructions(run, fake, folders):
    page = folders / "page.html"
    code, out, _ = run(
        "--model=runs/a",
        "--metrics=psnr,l1",
        "--micro-batch=4",
        "--json",
        f"--html={page}",
        images="photos",
        reference=None,
    )
    assert code == 0
    record = json.loads(out)
    assert record["model"]["fingerprint"] == "abc123"
    assert record["reference"]["pairs"]["name"] == str(folders / "photos")
    assert record["images"]["name"].startswith("reconstructions of ")
    (tok,) = fake.made
    assert tok.batches == [(4, 16, 16, 3), (2, 16, 16, 3)]
    made = [tok.decode(tok.encode(picture(i)[None])) for i in range(6)]
    originals = np.stack([picture(i) for i in range(6)])
    l1 = pixels.l1(originals, np.concatenate(made))
    assert record["metrics"]["l1"]["value"] == pytest.approx(l1.mean(), rel=0.1)
    assert "Evaluation of runs/a" in page.read_text()


def test_a_model_wants_images(run, fake):
    code, _, err = run("--model=runs/a", images=None, reference=None)
    assert code == 2 and "is a tokenizer: give --dataset or --images" in err
    code, _, err = run("--model=runs/a", "--metrics=nll", reference=None)
    assert code == 2 and "nll is of a prior" in err
    for flag in ("--num", "--seed", "--top-k"):
        code, _, err = run("--model=runs/a", f"{flag}=5", reference=None)
        assert code == 2 and f"{flag} tells how a prior draws" in err


def test_a_tokenizer_against_another_set(run, fake, folders, random_squeezenet):
    """PSNR compares with what went in, a distance of sets with the other set."""
    flags = ["--metrics=psnr,squeezenet_fd", f"--squeezenet={random_squeezenet}"]
    flags += ["--model=runs/a", "--max-images=3", "--json"]
    code, out, _ = run(*flags, images="photos", reference="made")
    reference = json.loads(out)["reference"]
    assert code == 0
    names = {kind: found["name"] for kind, found in reference.items()}
    assert names == {"pairs": str(folders / "photos"), "sets": str(folders / "made")}
    assert reference["pairs"]["fingerprint"] != reference["sets"]["fingerprint"]


def test_a_prior_draws_what_is_judged(run, tiny_prior_bundle, folders, monkeypatch):
    """16 x 16 pixels, as the prior's grid is."""
    from movq_jax.evaluation import networks

    seen = []

    def features(images):
        seen.append(np.stack(images))
        return np.stack([image.mean(axis=(0, 1)) for image in images])

    stand_in = property(lambda self: features)
    monkeypatch.setattr(networks.Networks, "squeezenet", stand_in)
    monkeypatch.setattr("movq_jax.evaluation.set_features.WIDTHS", {"squeezenet": 3})
    flags = [f"--model={tiny_prior_bundle}", "--num=5", "--metrics=squeezenet_fd"]
    code, out, _ = run(*flags, "--seed=3", "--json", images=None, whole=False)
    assert code == 0
    record = json.loads(out)
    assert record["metrics"]["squeezenet_fd"]["count"] == 5
    assert record["model"]["sampling"]["seed"] == 3
    assert record["protocol"]["size"] == 16
    drawn = seen[0]
    import movq_jax

    prior = movq_jax.load(tiny_prior_bundle)
    expected = prior.decode(prior.sample(5, seed=3))
    np.testing.assert_array_equal(drawn, expected)
    code, _, err = run(*flags[:1], "--metrics=psnr", images=None)
    assert code == 2 and "a prior's samples have none" in err
    code, _, err = run(*flags[:1], "--metrics=fid", images=None)
    assert code == 2 and "--num=N tells how many" in err
    code, _, err = run(*flags[:1])
    assert code == 2 and "is a prior, which draws images: leave out --images" in err
    code, _, err = run(*flags[:2], images=None)
    assert code == 2 and "--num samples have no use for nll: ask for metrics" in err
    code, _, err = run(*flags[:1], images=None)
    assert code == 2 and "nll is of the images of a split: give --dataset" in err
    nll = [*flags[:1], "--dataset=none"]
    code, _, err = run(*nll, "--protocol=adm", images=None, reference=None)
    assert code == 2 and "--protocol has no use for nll" in err
    code, _, err = run(*nll, "--seed=4", images=None, reference=None)
    assert code == 2 and "--seed tells how a prior draws: ask for metrics" in err


def test_bits_alone_have_no_protocol(run, tiny_prior_bundle, folders, monkeypatch):
    class Split(list):
        name = "photos validation"

    data = (folders / "photos" / "0.png").read_bytes()
    record = {"image": data, "filename": "0.png", "label": 1}
    split = Split([record, record])
    monkeypatch.setattr("movq_jax.tools.evaluate_plan.open_split", lambda *_: split)
    where, page = folders / "nll.json", folders / "nll.html"
    flags = [f"--model={tiny_prior_bundle}", "--dataset=photos"]
    flags += [f"--json={where}", f"--html={page}"]
    code, text, _ = run(*flags, images=None, reference=None)
    assert code == 0 and text.startswith("likelihood, 2 images")
    record = json.loads(where.read_text())
    assert record["protocol"] is None and record["reference"] == {}
    nll = record["metrics"]["nll"]
    assert nll["split"] == "photos validation" and nll["preprocessing"]
    assert "Likelihood" in page.read_text()
    # What is written can be compared.
    assert command.run(compare.main, [str(where), str(where)]) == 0


@pytest.fixture
def squeezenet(real_samples):
    """The flag of the published weights."""
    path = real_samples / "weights" / "squeezenet" / "squeezenet_v1.0.npz"
    if not path.exists():
        pytest.skip(f"the weights of SqueezeNet are not in {path}")
    return f"--squeezenet={path}"


def test_squeezenet_fd_end_to_end(run, folders, squeezenet):
    for path in [*folders.glob("*/[3-5].*")]:  # three images are enough to wait for
        path.unlink()
    flags = ["--metrics=squeezenet_fd,psnr", squeezenet, "--json"]
    code, out, err = run(*flags)
    assert code == 0
    record = json.loads(out)
    together = record["metrics"]["squeezenet_fd"]
    assert together["value"] > 0 and together["low"] is None
    assert "SqueezeNet-FD of 3 images: biased" in err
    assert list(record["networks"]) == ["squeezenet"]
    # Against statistics that were saved before; and of one set alone.
    saved = folders / "photos.npz"
    save = ["--metrics=squeezenet-fd", squeezenet, f"--save-statistics={saved}"]
    code, out, _ = run(*save, images="photos", reference=None)
    assert code == 0
    code, out, _ = run("--metrics=squeezenet_fd", squeezenet, "--json", reference=saved)
    apart = json.loads(out)
    assert apart["metrics"]["squeezenet_fd"]["value"] == pytest.approx(
        together["value"], rel=1e-6
    )
    assert apart["reference"]["statistics"]["count"] == 3
    # Another protocol's statistics are refused.
    other = ["--metrics=squeezenet_fd", squeezenet, "--image-size=8"]
    code, _, err = run(*other, reference=saved, whole=False)
    assert code == 2 and "made by another protocol (size 0 there, 8 here" in err


@pytest.mark.slow
def test_squeezenet_fd_grows_with_damage(run, folders, squeezenet, real_samples):
    from movq_jax.data.images import decode_image

    found = sorted((real_samples / "data" / "coco").rglob("val2017/*.jpg"))[:12]
    if len(found) < 12:
        pytest.skip("there are no photographs of COCO")
    for path in [*(folders / "photos").iterdir()]:
        path.unlink()
    images = [Image.fromarray(decode_image(path)).resize((64, 64)) for path in found]
    for i, image in enumerate(images):
        image.save(folders / "photos" / f"{i}.png")
    saved = folders / "photos.npz"
    flags = ["--metrics=squeezenet_fd", squeezenet]
    save = f"--save-statistics={saved}"
    assert run(*flags, save, images="photos", reference=None)[0] == 0
    noise = np.random.default_rng(0).standard_normal((64, 64, 3))

    def with_noise(image, sigma):
        noisy = np.asarray(image) + sigma * noise
        return Image.fromarray(np.uint8(noisy.clip(0, 255).round()))

    damages = {
        "blur": [
            lambda x, r=r: x.filter(ImageFilter.GaussianBlur(r)) for r in (0.5, 1, 2)
        ],
        "noise": [lambda x, s=s: with_noise(x, s) for s in (5, 15, 45)],
        "jpeg": [60, 25, 8],
    }
    for kind, levels in damages.items():
        values = []
        for number, level in enumerate(levels):
            place = folders / f"{kind}{number}"
            place.mkdir()
            for i, image in enumerate(images):
                if kind == "jpeg":
                    image.save(place / f"{i}.jpg", quality=level)
                else:
                    level(image).save(place / f"{i}.png")
            code, out, _ = run(*flags, "--json", images=place.name, reference=saved)
            assert code == 0
            values.append(json.loads(out)["metrics"]["squeezenet_fd"]["value"])
        assert 0 < values[0] < values[1] < values[2], (kind, values)


@pytest.mark.slow
def test_all_of_inceptions_metrics(run, folders, inception_npz):
    metrics = "fid,sfid,is,kid,precision,recall,density,coverage"
    saved = folders / "photos.npz"
    flags = [f"--inception={inception_npz}", "--kid-subset=4"]
    code, out, _ = run(f"--metrics={metrics}", *flags, "--json")
    assert code == 0
    together = json.loads(out)
    assert list(together["metrics"]) == metrics.split(",")
    for found in together["metrics"].values():
        assert np.isfinite(found["value"]) and found["count"] == 6
    assert together["networks"].keys() == {"inception"}
    code, *_ = run(
        "--metrics=fid,sfid",
        *flags,
        f"--save-statistics={saved}",
        images="photos",
        reference=None,
    )
    assert code == 0
    code, out, _ = run("--metrics=fid,sfid", *flags, "--json", reference=saved)
    for name, found in json.loads(out)["metrics"].items():
        assert found["value"] == pytest.approx(
            together["metrics"][name]["value"], rel=1e-4
        )
    code, _, err = run("--metrics=kid", *flags, reference=saved)
    assert code == 2 and "no images, 'arr_0', which kid needs" in err
