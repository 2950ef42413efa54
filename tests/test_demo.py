"""What `make demo` says at its end of the generator that it has trained."""

import importlib.util

import pytest

from helpers import ROOT


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("demo", ROOT / "examples" / "demo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_verdict_stands_on_the_measured_results(demo):
    results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in results.splitlines() if line.startswith("| 200, seed ")]
    scores = sorted(float(row[3].strip("*")) for row in rows if row[2] == "50")
    assert len(scores) == 3 and f"{scores[0]} to {scores[-1]}" in demo.MEASURED and scores[0] > demo.LEAST
    for score, met in ((scores[0], True), (demo.LEAST - 0.001, False)):
        found, sentence = demo.verdict("Selectivity", score, demo.LEAST, demo.MEASURED)
        assert found == met and f"Selectivity {score:.3f}" in sentence


@pytest.mark.slow
def test_the_judge_gives_the_score_of_a_generator_that_is_stored(demo):
    folder = ROOT / "segan_ext" / "box" / "avatars64"
    said = f"selectivity {demo.selectivity(folder / 'generator.safetensors'):.3f}"
    assert said in (folder / "README.md").read_text(encoding="utf-8"), said
