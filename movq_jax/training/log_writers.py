"""Where a run's numbers and pictures go: TensorBoard and JSON lines.

A line of `metrics.jsonl` is a JSON object with `step` and either values by name or, of
an alarm that begins or is over, `alarm`, `message` and `over`. Only the first process
of a run writes.
"""

import json
import math
from typing import Any

import jax
import numpy as np
import tensorboardX
from etils import epath

from movq_jax.atomic import write_text
from movq_jax.training.alarms import Alarm

METRICS_FILE = "metrics.jsonl"


class LogWriters:
    """Writes scalars and alarms to both, pictures to TensorBoard.

    On resuming from step n, what an earlier process logged beyond n is dropped, so
    that each step is there once.
    """

    def __init__(self, workdir: str, *, resumed_at: int) -> None:
        self._writes = jax.process_index() == 0
        if not self._writes:
            return
        folder = epath.Path(workdir)
        path = folder / METRICS_FILE
        lines = (json.dumps(record) + "\n" for record in read_log(workdir, resumed_at))
        write_text(path, "".join(lines))
        self._file = path.open("a")
        self._board = tensorboardX.SummaryWriter(
            str(folder / "tensorboard"), purge_step=resumed_at + 1
        )

    def __enter__(self) -> "LogWriters":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._writes:
            self._file.close()
            self._board.close()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Logs name -> value; what is not finite becomes null in the JSON lines."""
        if not self._writes:
            return
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        self._write_line({"step": step, **finite})

    def alarm(self, step: int, alarm: Alarm) -> None:
        """Logs an alarm that begins or is over."""
        if not self._writes:
            return
        self._board.add_text(f"alarms/{alarm.name}", alarm.message, step)
        record = {"alarm": alarm.name, "message": alarm.message, "over": alarm.over}
        self._write_line({"step": step, **record})

    def images(self, step: int, images: dict[str, np.ndarray]) -> None:
        """Logs name -> uint8 [H, W, 3]."""
        if not self._writes:
            return
        for name, image in images.items():
            self._board.add_image(name, image, step, dataformats="HWC")
        self._board.flush()

    def _write_line(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        self._board.flush()


def read_log(workdir: epath.PathLike, last: int) -> list[dict[str, Any]]:
    """The records of `metrics.jsonl` of steps up to `last`; [] where there is none.

    What is no record, such as a torn last line, is left out.
    """
    path = epath.Path(workdir) / METRICS_FILE
    if not path.exists():
        return []
    records = []
    for line in path.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # no JSON, no text, or nested too deeply
            continue
        step = record.get("step") if isinstance(record, dict) else None
        if type(step) is int and step <= last:
            records.append(record)
    return records
