import io

from movq_jax.training.console import Console, Stopwatch

VALUES = {"train/loss_rec": 0.25, "train/images_per_second": 80.0, "train/lr": 1.0}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_a_line_each_time():
    stream = io.StringIO()
    console = Console(100, stream=stream)
    console.show(10, VALUES, 0.5)
    console.show(20, VALUES, 0.5)
    assert stream.getvalue() == (
        "step 10/100 · loss_rec 0.2500 · 80.0 images/s · 45 s left\n"
        "step 20/100 · loss_rec 0.2500 · 80.0 images/s · 40 s left\n"
    )


def test_a_terminal_gets_one_line_that_is_renewed():
    stream = Terminal()
    console = Console(100, stream=stream)
    console.show(10, VALUES, 0.5)
    console.show(20, VALUES, 0.5)
    console.say("done")
    assert stream.getvalue().count("\n") == 2  # that line, and what was said
    assert stream.getvalue().count("\r") == 2
    assert stream.getvalue().endswith("\ndone\n")


def test_the_share_of_time_spent_waiting():
    watch = Stopwatch()
    with watch.waiting():
        pass
    seconds, share = watch.read()
    assert seconds > 0 and 0 <= share <= 1
