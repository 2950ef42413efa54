"""The pages for newcomers: what they name is there, and what they say of files holds."""

import ast
import re

import pytest

from golden_data import FOLDER
from helpers import ROOT, make_dataset, run

DOCS = ROOT / "docs"
ROWS = [line for line in (DOCS / "problems.md").read_text(encoding="utf-8").splitlines() if re.match(r"\| \d", line)]


def functions_of(path):
    """Names of the functions of a file of tests"""
    return {node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if hasattr(node, "name")}


def test_every_problem_has_an_answer_that_something_shows():
    cells = [row.strip("| ").split(" | ") for row in ROWS]
    assert [int(row[0]) for row in cells] == list(range(1, 24))
    for row in cells:
        assert len(row) == 4 and re.search(r"`(tests/|make |python |LICENSE)", row[3]), row[0]


@pytest.mark.parametrize("page", ["problems.md", "from-nvidia.md", "limits.md"])
def test_tests_files_and_commands_that_are_named_exist(page):
    named = re.findall(r"`([^`\n]+)`", (DOCS / page).read_text(encoding="utf-8"))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    paths = [text for text in named if re.match(r"(tests|docs|stylegan2_ada|segan_ext|benchmarks|examples)/", text)]
    assert paths or page == "limits.md"
    for text in paths:
        path, _, test = text.partition("::")
        assert (ROOT / path).exists(), text
        assert not test or test in functions_of(ROOT / path), text
    for text in named:
        if text.startswith("make "):
            assert re.search(rf"^{text[5:]}:", makefile, flags=re.M), text


def test_networks_of_another_size_are_refused_with_both_numbers(tmp_path):
    data = make_dataset(tmp_path / "discs.zip", size=16)
    done = run(
        "stylegan2_ada/train.py", "-n", f"--data={data}", f"--resume={FOLDER / 'nvidia_pickle_uncond.pkl'}", check=False
    )
    assert done.returncode == 2
    assert "img_resolution 32, the data set has 16; make them equal" in done.stderr


def test_the_options_of_the_reference_are_all_named():
    """Those that train.py has in common with it, and those that it has besides"""
    text = (DOCS / "from-nvidia.md").read_text(encoding="utf-8")
    said = run("stylegan2_ada/train.py", "--help").stdout
    for option in re.findall(r"^  (?:-n, )?(--[a-z0-9-]+)", said, flags=re.M):
        assert option in ("--help", "--dry-run") or f"`{option}`" in text, option
