"""The suite with networks so simple that its numbers can be worked out beside it."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.evaluation import set_features
from movq_jax.evaluation.metrics import pixels
from movq_jax.evaluation.metrics.frechet import FeatureStatistics, frechet_distance
from movq_jax.evaluation.metrics.inception_score import InceptionScore
from movq_jax.evaluation.metrics.kid import kid
from movq_jax.evaluation.metrics.manifold import density_coverage, precision_recall
from movq_jax.evaluation.protocols import find_protocol
from movq_jax.evaluation.reference_files import Moments, ReferenceFile
from movq_jax.evaluation.suite import Suite
from movq_jax.evaluation.suite_checks import check_counts

WIDTHS = {"pool": 6, "spatial": 4, "squeezenet": 3}
PROTOCOL = find_protocol("default").with_size(16)


class FakeNetworks:
    """Features are means of the image's rows, through fixed random matrices."""

    def __init__(self):
        self.fingerprints = {}
        rng = np.random.default_rng(0)
        shapes = {**WIDTHS, "logits_unbiased": 10}
        self._mix = {k: rng.standard_normal((16, w)) for k, w in shapes.items()}

    def inception(self, resize):
        self.fingerprints["inception"] = f"fake {resize}"
        return lambda images: SimpleNamespace(
            **{key: self.features(key, images) for key in self._mix}
        )

    @property
    def squeezenet(self):
        self.fingerprints["squeezenet"] = "fake"
        return lambda images: self.features("squeezenet", images)

    def features(self, key, images):
        rows = np.stack([image.mean(axis=(1, 2)) for image in images]) / 64
        return (rows @ self._mix[key]).astype(np.float32)


@pytest.fixture
def networks(monkeypatch):
    monkeypatch.setattr(set_features, "WIDTHS", WIDTHS)
    return FakeNetworks()


def noise(count, seed=0, size=16):
    rng = np.random.default_rng(seed)
    return list(rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8))


IMAGES, OTHERS = noise(20), noise(24, seed=1)
NAMES = [f"{number}" for number in range(20)]


def measured(suite, batch=7):
    for start in range(0, 20, batch):
        part = slice(start, start + batch)
        suite.add(NAMES[part], IMAGES[part])
    for start in range(0, 24, batch):
        suite.add_reference(OTHERS[start : start + batch])
    return suite.compute()


def moments(features):
    found = FeatureStatistics(features.shape[1])
    found.update(features)
    return found.mean, found.covariance


SETS = "squeezenet_fd,fid,sfid,is,kid,precision,recall,density,coverage".split(",")


def test_metrics_of_sets(networks):
    records = measured(Suite(PROTOCOL, SETS, networks, kid_subset=10))
    assert list(records) == SETS
    value = {name: record["value"] for name, record in records.items()}
    for name, key in [("fid", "pool"), ("sfid", "spatial"), ("squeezenet_fd",) * 2]:
        key = key.removesuffix("_fd")
        sides = [moments(networks.features(key, x)) for x in (IMAGES, OTHERS)]
        assert value[name] == pytest.approx(frechet_distance(*sides[0], *sides[1]))
    a, b = (networks.features("pool", x) for x in (IMAGES, OTHERS))
    assert value["kid"] == kid(a, b, subset_size=10)[0]
    assert (value["precision"], value["recall"]) == precision_recall(b, a)
    assert (value["density"], value["coverage"]) == density_coverage(b, a)
    score = InceptionScore.adm()
    score.update(networks.features("logits_unbiased", IMAGES))
    assert value["is"] == pytest.approx(score.compute()[0])
    assert records["kid"]["subset_size"] == 10 and records["kid"]["std"] > 0
    assert {record["count"] for record in records.values()} == {20}
    assert records["fid"]["low"] is None


def test_batches_make_no_difference(networks):
    one, many = (
        measured(Suite(PROTOCOL, ["fid", "is", "precision"], networks), batch)
        for batch in (24, 3)
    )
    for name in one:
        assert one[name]["value"] == pytest.approx(many[name]["value"], rel=1e-9)


@pytest.mark.parametrize("name", ["titok", "torch_fidelity"])
def test_the_protocol_parts_the_images_for_the_inception_score(networks, name):
    protocol = find_protocol(name).with_size(16)
    found = measured(Suite(protocol, ["is"], networks))["is"]
    made = InceptionScore.one_block()
    if name == "torch_fidelity":
        made = InceptionScore.torch_fidelity(20)
    made.update(networks.features("logits_unbiased", IMAGES))
    assert (found["value"], found["std"]) == pytest.approx(made.compute())
    assert networks.fingerprints == {"inception": f"fake {protocol.network_resize}"}


def test_metrics_of_pairs(networks):
    partners = [image ^ np.uint8(3 * i) for i, image in enumerate(IMAGES)]
    suite = Suite(PROTOCOL, ["psnr", "l1", "ssim"], networks, worst=3)
    suite.add(NAMES[:9], IMAGES[:9], partners[:9])
    suite.add(NAMES[9:], IMAGES[9:], partners[9:])
    records = suite.compute()
    psnr = pixels.psnr(np.stack(partners), np.stack(IMAGES))
    assert np.isinf(psnr[0])
    assert records["psnr"]["value"] == pytest.approx(psnr[1:].mean())
    assert (records["psnr"]["count"], records["psnr"]["left_out"]) == (19, 1)
    assert records["psnr"]["low"] < records["psnr"]["value"] < records["psnr"]["high"]
    assert records["l1"]["count"] == 20 and not records["l1"]["higher_is_better"]
    worst = suite.worst()
    order = np.argsort(psnr)[:3]
    assert [shown.name for shown in worst["psnr"]] == [NAMES[i] for i in order]
    np.testing.assert_array_equal(worst["psnr"][0].image[::16, ::16], IMAGES[order[0]])
    l1 = pixels.l1(np.stack(partners), np.stack(IMAGES))
    assert worst["l1"][0].name == NAMES[np.argmax(l1)]
    (digits,) = {found["fingerprint"] for found in suite.references().values()}
    assert suite.references() == {"pairs": {"count": 20, "fingerprint": digits}}
    assert {record["reference"] for record in records.values()} == {"pairs"}
    names, columns = suite.per_image()
    assert names == NAMES and list(columns) == ["psnr", "l1", "ssim"]
    np.testing.assert_allclose(columns["psnr"], psnr)


def test_equal_images_have_no_psnr(networks):
    suite = Suite(PROTOCOL, ["psnr", "mse"], networks)
    suite.add(NAMES, IMAGES, IMAGES)
    records = suite.compute()
    assert records["psnr"]["value"] is None and records["psnr"]["left_out"] == 20
    assert records["mse"]["value"] == 0 and "reason" not in records["psnr"]


def test_images_below_a_window_are_left_out(networks):
    suite = Suite(PROTOCOL.with_size(0), ["ssim", "l1"], networks)
    small = noise(1, size=8)
    suite.add(["small", "large"], [small[0], IMAGES[0]], [small[0], IMAGES[1]])
    records = suite.compute()
    assert records["ssim"]["count"] == 1 and records["ssim"]["left_out"] == 1
    assert "11 pixels" in records["ssim"]["reason"]
    assert records["ssim"]["too_small"] == 1 and "too_small" not in records["l1"]
    assert records["l1"]["count"] == 2


def test_pairs_of_two_sizes(networks):
    suite = Suite(PROTOCOL.with_size(0), ["l1"], networks)
    with pytest.raises(UserError, match="b is 16 x 16 and its partner 8 x 8"):
        suite.add(["a", "b"], IMAGES[:2], [IMAGES[0], *noise(1, size=8)])


def reference(fake, **changes):
    found = Moments(*moments(fake.features("pool", OTHERS)))
    fields = {"path": Path("r.npz"), "moments": {"pool": found}, "has_images": False}
    return ReferenceFile(**fields | changes)


def test_a_file_of_statistics_stands_in_for_images(networks):
    file = reference(networks, count=24, protocol=PROTOCOL.as_record())
    suite = Suite(PROTOCOL, ["fid", "is"], networks, reference=file)
    assert not suite.needs_reference_images
    suite.add(NAMES, IMAGES)
    expected = measured(Suite(PROTOCOL, ["fid"], networks))["fid"]["value"]
    assert suite.compute()["fid"]["value"] == pytest.approx(expected)
    wanted = {"count": 24, "fingerprint": file.fingerprint}
    assert suite.references() == {"statistics": wanted}


def test_each_kind_of_metric_has_its_own_reference(networks):
    """Pairs compare with partners, also where sets compare with something else."""
    partnered = Suite(PROTOCOL, ["psnr", "fid"], networks)
    partnered.add(NAMES, IMAGES, OTHERS[:20])
    partnered.add_reference(OTHERS)
    alone = Suite(PROTOCOL, ["fid", "is"], networks)
    alone.add(NAMES, IMAGES)
    alone.add_reference(OTHERS)
    digits = [suite.references() for suite in (partnered, alone)]
    assert digits[0]["sets"] == digits[1]["sets"] != digits[0]["pairs"]
    assert (digits[0]["pairs"]["count"], digits[0]["sets"]["count"]) == (20, 24)
    assert alone.compute()["fid"]["reference"] == "sets"
    assert "reference" not in alone.compute()["is"]
    # Of a file with images, too, each metric names what it used.
    file = reference(networks, has_images=True)
    both = Suite(PROTOCOL, ["fid", "precision", "l1"], networks, reference=file)
    both.add(NAMES, IMAGES, OTHERS[:20])
    both.add_reference(OTHERS)
    used = {name: record["reference"] for name, record in both.compute().items()}
    assert used == {"fid": "statistics", "precision": "sets", "l1": "pairs"}
    assert both.references().keys() == {"pairs", "sets", "statistics"}
    assert both.references()["statistics"]["fingerprint"] == file.fingerprint


def test_files_that_do_not_fit(networks):
    def suite(metrics, **changes):
        file = reference(networks, **changes)
        return Suite(PROTOCOL, metrics, networks, reference=file)

    with pytest.raises(UserError, match="r.npz has no 'mu_s', which sfid needs"):
        suite(["sfid"])
    with pytest.raises(UserError, match="no images, 'arr_0', which precision needs"):
        suite(["fid", "precision"])
    assert suite(["precision"], has_images=True).needs_reference_images
    other = find_protocol("clean").with_size(16).as_record()
    with pytest.raises(UserError, match=r"another protocol \(network_resize clean the"):
        suite(["fid"], protocol=other)
    with pytest.raises(UserError, match="other weights of inception"):
        suite(["fid"], networks={"inception": "another"})
    # What looks at other features, or at the images, is free of that.
    suite(["psnr", "is"], protocol=other, networks={"inception": "another"})
    found = {"squeezenet": Moments(np.zeros(3), np.eye(3))}
    suite(["squeezenet_fd"], moments=found, protocol=other)


def test_warnings(networks):
    suite = Suite(PROTOCOL, ["fid", "psnr"], networks, reference=reference(networks))
    suite.add(NAMES, IMAGES, IMAGES)
    few, unknown = suite.warnings()
    assert few.startswith("FID of 20 images: biased; compare only with")
    assert unknown.startswith("r.npz does not say by which protocol")
    pairs = Suite(PROTOCOL, ["psnr"], networks)
    pairs.add(NAMES, IMAGES, IMAGES)
    assert not pairs.warnings()


def test_other_references_have_other_fingerprints(networks):
    made = []
    for others in (OTHERS, OTHERS, OTHERS[:-1], noise(24, seed=2)):
        suite = Suite(PROTOCOL, ["fid"], networks)
        suite.add_reference(others)
        made.append(suite.references()["sets"]["fingerprint"])
    assert made[0] == made[1] and len(set(made)) == 3
    paired = Suite(PROTOCOL, ["l1", "fid"], networks)
    paired.add(NAMES, IMAGES, OTHERS[:20])
    paired.add_reference(OTHERS[:20])
    alone = Suite(PROTOCOL, ["l1"], networks)
    alone.add(NAMES, IMAGES, OTHERS[:20])
    assert paired.references()["pairs"] == alone.references()["pairs"]
    assert paired.references()["sets"] == paired.references()["pairs"]
    assert Suite(PROTOCOL, ["is"], networks).references() == {}


def test_statistics_without_a_reference(networks):
    suite = Suite(PROTOCOL, ["fid", "is"], networks, statistics_only=True)
    suite.add(NAMES, IMAGES)
    assert list(suite.compute()) == ["is"]
    assert suite.statistics["pool"].count == 20 and not suite.warnings()


def test_what_cannot_be_computed_says_why(networks):
    records = measured(Suite(PROTOCOL, ["kid", "fid"], networks))
    assert records["kid"]["value"] is None
    assert "subsets of 1000 images" in records["kid"]["reason"]
    assert records["fid"]["value"] > 0


def test_too_few_images_are_met_early():
    check_counts(["psnr", "is"], 1)
    for name, count in {"fid": 1, "kid": 999, "recall": 3, "coverage": 5}.items():
        with pytest.raises(UserError, match=f"{name} needs at least {count + 1} im"):
            check_counts([name], count)
        check_counts([name], count + 1)
    with pytest.raises(UserError, match="is needs at least 10 images, and there are 9"):
        check_counts(["is"], 9, is_variant="torch_fidelity")
    check_counts(["is"], 10, 1, is_variant="torch_fidelity")
    check_counts(["is"], 1, is_variant="adm")
    with pytest.raises(UserError, match="recall needs at least 4 images in each set"):
        check_counts(["recall"], 9, 3)
