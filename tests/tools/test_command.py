import argparse
import io
import json
import subprocess
import sys

import numpy as np
import pytest

from movq_jax.errors import InputsRefused, Preempted, UserError
from movq_jax.tools import command


@pytest.fixture
def parser():
    parser = command.ArgumentParser(prog="movq thing")
    parser.add_argument("--model", required=True)
    parser.add_argument("--input", nargs="+", action="extend")
    parser.add_argument("--max-side", type=command.positive_int, default=7)
    command.add_json_flag(parser)
    return parser


@pytest.mark.parametrize(
    "error, code",
    [(UserError("no"), 2), (InputsRefused("no"), 4), (Preempted("no"), 75)],
)
def test_run_turns_an_error_into_a_line_and_its_code(error, code, capsys):
    def main(argv):
        raise error

    assert command.run(main, []) == code
    assert capsys.readouterr() == ("", "error: no\n")


def test_run_returns_zero_and_passes_the_arguments_on():
    seen = []
    assert command.run(seen.append, ["--x"]) == 0
    assert seen == [["--x"]]


def test_run_ends_quietly_on_ctrl_c(capsys):
    def main(argv):
        raise KeyboardInterrupt

    assert command.run(main) == 130
    assert capsys.readouterr().err == "stopped by Ctrl-C\n"


def test_run_keeps_the_traceback_of_a_bug():
    with pytest.raises(ZeroDivisionError):
        command.run(lambda argv: 1 / 0)


def test_help_is_no_error(parser, capsys):
    assert command.run(parser.parse_args, ["--help"]) == 0
    assert "--max-side" in capsys.readouterr().out


def test_a_micro_batch_has_a_bound():
    assert [command.micro_batch(text) for text in ("1", "1024")] == [1, 1024]
    for text, message in {"1025": "1025 is above 1024", "0": "positive whole"}.items():
        with pytest.raises(argparse.ArgumentTypeError, match=message):
            command.micro_batch(text)


def test_a_reader_that_leaves_early_is_no_error():
    script = (
        "import sys; from movq_jax.tools import command\n"
        "sys.exit(command.run(lambda _: print('x\\n' * 10**6)))"
    )
    result = subprocess.run(
        f'"{sys.executable}" -c "$SCRIPT" | head -n 1; echo "${{PIPESTATUS[0]}}"',
        shell=True,
        executable="/bin/bash",
        env={
            "SCRIPT": script,
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": ":".join(sys.path),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["x", "141"]
    assert result.stderr == ""


def test_a_name_that_stdout_cannot_spell_is_printed_all_the_same(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert command.run(lambda argv: print("café")) == 0
    assert stream.buffer.getvalue() == b"caf\\xe9\n"


def test_dashes_and_underscores_are_one(parser):
    for flag in ("--max-side=9", "--max_side=9"):
        assert parser.parse_args(["--model=a", flag]).max_side == 9
    assert parser.parse_args(["--max_side", "9", "--model=a"]).max_side == 9


def test_values_keep_their_underscores(parser):
    args = parser.parse_args(["--model=runs/my_run", "--input", "a_b", "c_d"])
    assert (args.model, args.input) == ("runs/my_run", ["a_b", "c_d"])


def test_several_values_in_every_spelling(parser):
    for argv in (
        ["--input=a", "b", "c"],
        ["--input", "a", "b", "c"],
        ["--input=a", "--input=b", "--input", "c"],
    ):
        assert parser.parse_args(["--model=m", *argv]).input == ["a", "b", "c"]


def test_a_misspelt_flag_is_answered_with_the_nearest(parser):
    with pytest.raises(UserError, match=r"--modle \(did you mean '--model'\?\)"):
        parser.parse_args(["--modle=runs/a"])
    with pytest.raises(UserError, match=r"--max_sied \(did you mean '--max-side'"):
        parser.parse_args(["--model=runs/a", "--max_sied=3"])


def test_flags_are_not_abbreviated(parser):
    with pytest.raises(UserError, match="unknown flag --max"):
        parser.parse_args(["--model=a", "--max=3"])


def test_what_is_unknown_can_be_kept_as_it_was_given(parser):
    args, rest = parser.parse_known_args(
        ["--model=a", "--config.model.embed_dim=3", "--max_side=2"]
    )
    assert args.max_side == 2
    assert rest == ["--config.model.embed_dim=3"]


@pytest.mark.parametrize(
    "argv, message",
    [
        ([], "required: --model"),
        (["--model=a", "stray"], "stray"),
        (["--model=a", "--max-side=0"], "'0' is not a positive whole number"),
        (["--model=a", "--max-side=x"], "--max-side: 'x' is not"),
        (["--model="], "--model has an empty value"),
        (["--model", ""], "--model has an empty value"),
        (["--model=a", "--input=a", ""], "--input has an empty value"),
        (["--model=a", "--json="], "--json has an empty value"),
    ],
)
def test_wrong_usage_says_what_is_wrong(parser, argv, message, capsys):
    assert command.run(parser.parse_args, argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error and "movq thing --help" in error


def test_the_home_folder_in_a_place(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    command.emit_json({"a": 1}, "~/a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


def test_json_flag(parser, tmp_path, capsys):
    record = {"psnr": np.float32(2.5), "path": tmp_path, "ids": np.arange(2)}
    expected = {"psnr": 2.5, "path": str(tmp_path), "ids": [0, 1]}

    def json_of(*argv):
        return parser.parse_args(["--model=a", *argv]).json

    command.emit_json(record, json_of())
    assert capsys.readouterr().out == ""
    command.emit_json(record, json_of("--json"))
    assert json.loads(capsys.readouterr().out) == expected
    path = tmp_path / "new" / "record.json"
    command.emit_json(record, json_of(f"--json={path}"))
    assert json.loads(path.read_text()) == expected
    assert list(path.parent.iterdir()) == [path]


def test_a_place_for_json_that_cannot_be_written_is_met_at_once(parser, tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "record.json"):
        with pytest.raises(UserError, match="cannot write"):
            parser.parse_args(["--model=a", f"--json={path}"])
    assert parser.parse_args(["--model=a", "--json=-"]).json == command.STDOUT


def test_an_empty_value_that_is_the_default_is_none():
    parser = command.ArgumentParser(prog="movq thing")
    parser.add_argument("--data-dir", default="")
    assert parser.parse_args([]).data_dir == ""


def test_json_has_null_where_it_knows_no_number():
    record = {
        "a": float("inf"),
        "b": [np.nan, np.float32("-inf")],
        "c": np.array([np.nan]),
    }
    assert json.loads(command.to_json(record)) == {
        "a": None,
        "b": [None] * 2,
        "c": [None],
    }


def test_text_for_people_leaves_stdout_to_the_record():
    assert command.human_stream(None) is sys.stdout
    assert command.human_stream("file.json") is sys.stdout
    assert command.human_stream("-") is sys.stderr


def test_did_you_mean():
    assert command.did_you_mean("recnostruct", ["encode", "reconstruct"]) == (
        " (did you mean 'reconstruct'?)"
    )
    assert command.did_you_mean("zebra", ["encode", "reconstruct"]) == ""
