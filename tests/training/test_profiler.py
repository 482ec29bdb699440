import jax
import jax.numpy as jnp
import pytest

from movq_jax.errors import UserError
from movq_jax.training.profiler import Profiler, read_steps


def test_reading_steps():
    assert read_steps("10:15") == range(10, 16)
    assert read_steps("10") == range(10, 11)
    assert read_steps(None) is None


@pytest.mark.parametrize("text", ["", "0", "a", "3:2", "1:2:3", "-1", "1:", "1.5"])
def test_what_is_no_step(text):
    with pytest.raises(UserError, match="must be a step or two, such as 10 or 10:15"):
        read_steps(text)


def test_a_bucket_is_refused():
    with pytest.raises(UserError, match="--profile needs a local --workdir"):
        Profiler(range(1, 2), "gs://bucket/run", 10)


def run(profiler, steps):
    """Traces nothing much; the steps at which the trace began and ended."""
    began, ended = [], []
    for step in steps:
        if profiler.start_due(step):
            profiler.start()
            began.append(step)
        with profiler.step(step):
            x = jnp.zeros(3) + step
        if profiler.stop_due(step):
            assert "perfetto_trace.json.gz" in profiler.stop(x)
            ended.append(step)
    return began, ended


def traces(workdir):
    return list(workdir.rglob("perfetto_trace.json.gz"))


def test_the_steps_that_were_asked_for(tmp_path):
    with Profiler(range(2, 4), tmp_path, 9) as profiler:
        assert profiler.missed(1) == ""
        assert run(profiler, range(1, 6)) == ([2], [3])
    assert len(traces(tmp_path)) == 1


def test_a_run_that_resumes_among_them_traces_the_rest(tmp_path):
    with Profiler(range(2, 6), tmp_path, 9) as profiler:
        assert profiler.missed(3) == ""
        assert run(profiler, range(4, 8)) == ([4], [5])
        assert profiler.missed(5).startswith("no trace: the run is at step 5")


def test_an_error_ends_the_trace(tmp_path):
    with pytest.raises(RuntimeError, match="power cut"):
        with Profiler(range(1, 9), tmp_path, 9) as profiler:
            run(profiler, range(1, 3))
            raise RuntimeError("power cut")
    assert traces(tmp_path)
    jax.profiler.start_trace(tmp_path / "another")  # none is open
    jax.profiler.stop_trace()


def test_a_place_that_cannot_be_written_is_found_before_the_first_step(tmp_path):
    (tmp_path / "profile").write_text("")
    with pytest.raises(UserError, match="--profile cannot write to .*profile: "):
        with Profiler(range(1, 2), tmp_path, 9):
            pytest.fail("a step")
    with Profiler(None, tmp_path, 9):
        pass  # nobody asked for a trace


def test_without_steps_there_is_no_trace(tmp_path):
    with Profiler(None, tmp_path, 9) as profiler:
        assert run(profiler, range(1, 4)) == ([], [])
    assert not traces(tmp_path)
