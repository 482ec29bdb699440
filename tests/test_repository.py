"""What the files around the package say of it, and of one another."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

import movq_jax
from movq_jax import errors

ROOT = Path(__file__).parents[1]


def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_version_is_the_same_everywhere():
    version = movq_jax.__version__
    assert f"\nversion: {version}\n" in text_of("CITATION.cff")
    assert f"\n## [{version}]" in text_of("CHANGELOG.md")


def test_the_pins_are_the_same_everywhere():
    torch = re.search(r"torch==[\d.]+", text_of("setup.py"))[0]
    assert torch in text_of("Makefile")


def test_the_readme_lists_all_exit_codes():
    codes = [value for name, value in vars(errors).items() if name.startswith("EXIT_")]
    assert len(codes) == 5
    for code in codes:
        assert f"\n| {code} | " in text_of("README.md")


def test_the_readmes_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?:|#)([^)]+)\)", text_of("README.md"))
    assert links
    for link in links:
        assert (ROOT / link.partition("#")[0]).exists(), link


SCRIPTS = ["launch/demo.sh", "launch/demo_prior.sh", ".ci/run"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_shell_scripts_are_executable_and_parse(script):
    assert (ROOT / script).stat().st_mode & 0o100
    subprocess.run(["bash", "-n", ROOT / script], check=True)


def test_every_package_is_packaged():
    """find_packages sees only folders with an __init__.py."""
    for file in (ROOT / "movq_jax").rglob("*.py"):
        assert (file.parent / "__init__.py").exists(), file


@pytest.mark.parametrize("floor", ["models", "sampling", "config"])
def test_the_lower_floors_import_nothing_from_above(floor):
    above = {"data", "evaluation", "pretrained", "training", "tools", "main"}
    above |= {"jax", "flax"} if floor == "config" else {"clu", "optax"}
    above |= {"models": {"sampling", "ml_collections"}}.get(floor, set())
    for file in (ROOT / "movq_jax" / floor).rglob("*.py"):
        for module in imported(file):
            parts = module.removeprefix("movq_jax.").split(".")
            assert parts[0] not in above, f"{file} imports {module}"


def imported(file):
    """Yield the names of the modules that a file imports."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
