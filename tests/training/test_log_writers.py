import json

import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.training.alarms import Alarm
from movq_jax.training.log_writers import LogWriters, read_log


def steps(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_resuming_drops_what_was_logged_beyond(tmp_path):
    with LogWriters(tmp_path, resumed_at=0) as writers:
        for step in (1, 2, 3):
            writers.scalars(step, {"train/loss": 0.5})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "tr')  # the process was killed here
    with LogWriters(tmp_path, resumed_at=2) as writers:
        writers.scalars(3, {"train/loss": 0.25})
    assert steps(tmp_path) == [1, 2, 3]


def test_numbers_that_json_does_not_know_are_null(tmp_path):
    with LogWriters(tmp_path, resumed_at=0) as writers:
        writers.scalars(1, {"a": float("nan"), "b": 2.0})
        writers.images(1, {"grid": np.zeros((4, 6, 3), np.uint8)})
    record = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert record == {"step": 1, "a": None, "b": 2.0}


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        LogWriters(tmp_path / "file", resumed_at=0)


def test_lines_that_are_no_records_are_dropped(tmp_path):
    lines = (b'{"step": 1}', b"[1]", b"3", b'{"a": 1}', b'{"step": "x"}', b"\xff", b"")
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    with LogWriters(tmp_path, resumed_at=5):
        pass
    assert steps(tmp_path) == [1]


def test_a_line_that_is_nested_too_deeply_is_dropped(tmp_path):
    deep = b"[" * 100_000
    (tmp_path / "metrics.jsonl").write_bytes(deep + b'\n{"step": 1}\n')
    assert read_log(tmp_path, 2) == [{"step": 1}]


def test_an_alarm_is_a_line_of_its_own(tmp_path):
    with LogWriters(tmp_path, resumed_at=0) as writers:
        writers.scalars(1, {"train/loss": 0.5})
        writers.alarm(1, Alarm("loss_spike", "Do this"))
        writers.alarm(2, Alarm("loss_spike", "loss_spike is over", over=True))
    assert read_log(tmp_path, 2)[1:] == [
        {"step": 1, "alarm": "loss_spike", "message": "Do this", "over": False},
        {
            "step": 2,
            "alarm": "loss_spike",
            "message": "loss_spike is over",
            "over": True,
        },
    ]
    assert read_log(tmp_path / "nowhere", 2) == []
