import pytest

from movq_jax.errors import UserError
from movq_jax.evaluation.metric_table import METRICS, needs_of, of_kind, read_names
from movq_jax.evaluation.metric_text import interval_text, notes_of, value_text


def test_names_are_read_as_people_write_them():
    assert read_names("psnr, ssim,PSNR,SSIM") == ("psnr", "ssim")
    assert read_names("ms-ssim") == ("ms_ssim",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("psnr,fidd", "no metric 'fidd'; did you mean 'fid'"),
        ("rfid", "no metric 'rfid'"),
        (",", "no metric is named"),
    ],
)
def test_what_is_no_metric(text, message):
    with pytest.raises(UserError, match=message):
        read_names(text)


def test_what_metrics_need():
    assert of_kind(("psnr", "fid", "nll"), "sets") == ("fid",)
    assert needs_of(("psnr", "fid", "kid", "recall")) == {"pool", "kept"}
    assert not METRICS["is"].needs_reference and METRICS["kid"].needs_reference
    assert [n for n in METRICS if METRICS[n].is_frechet] == [
        "squeezenet_fd",
        "fid",
        "sfid",
    ]


def test_what_a_number_depends_on():
    assert METRICS["nll"].looks_at == ()
    assert METRICS["psnr"].looks_at == METRICS["squeezenet_fd"].looks_at
    assert "network_resize" in METRICS["fid"].looks_at
    variants = {name: metric.variants for name, metric in METRICS.items()}
    assert variants["is"] == ("is_variant",)
    assert variants["recall"] == ("precision_distance",) and not variants["fid"]
    assert METRICS["fid"].network == METRICS["coverage"].network == "inception"


def test_numbers_as_people_read_them():
    assert value_text("fid", 1234.5678) == "1,234.568"
    assert value_text("psnr", None) == "none"
    assert interval_text("psnr", {"low": 1.0, "high": 2.0}) == "1.000 to 2.000"
    assert interval_text("kid", {"low": None, "std": 0.5}) == "std 0.500000"
    assert interval_text("fid", {"low": None}) == ""


def test_what_is_said_beside_the_numbers():
    found = {"value": 30.0, "left_out": 2}
    record = {"metrics": {"psnr": found}, "warnings": ["biased"]}
    assert notes_of(record) == [
        "biased",
        "PSNR, dB: 2 exact pairs are left out of the mean",
    ]
    found |= {"reason": "below the window", "too_small": 1}
    assert notes_of(record)[1:] == [
        "PSNR, dB: 1 image is left out of the mean: below the window",
        "PSNR, dB: 1 exact pair is left out of the mean",
    ]
    other = {"metrics": {"fid": {"value": None, "reason": "too few"}}}
    assert notes_of(other) == ["FID: too few"]
