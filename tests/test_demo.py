"""What `make demo` says at its end of the generator that it has trained."""

import importlib.util
import re

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
    found = re.search(r"`make demo`, 200 labels, seed 0, 50 kimg: \*\*([\d.]+)\*\*, recall ([\d.]+) by", results)
    measured = [(found[1], demo.LEAST, demo.MEASURED), (found[2], demo.LEAST_RECALL, demo.MEASURED_RECALL)]
    for value, least, sentence in measured:
        assert value in sentence and float(value) > least
        for score, met in ((float(value), True), (least - 0.001, False)):
            verdict = demo.verdict("Selectivity", score, least, sentence)
            assert verdict[0] == met and f"Selectivity {score:.3f}" in verdict[1]


@pytest.mark.slow
def test_the_judge_gives_the_score_of_a_generator_that_is_stored(demo):
    folder = ROOT / "segan_ext" / "box" / "avatars64"
    said = f"selectivity {demo.selectivity(folder / 'generator.safetensors'):.3f}"
    assert said in (folder / "README.md").read_text(encoding="utf-8"), said
