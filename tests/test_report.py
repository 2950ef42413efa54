"""The report over several runs: columns by protocol, one file that needs nothing else, missing metrics computed."""

import base64
import json
import re
from pathlib import Path

import PIL.Image
import pytest

import segan_ext.metrics  # noqa: F401 (registers them)
from helpers import TINY, make_dataset, run
from metrics import metric_main
from segan_ext.report.runs import Result, Run, columns_of, read_run, short_names


def some_run(name, *results):
    return Run(name, "2", 2, 10.0, None, [Result(*result) for result in results], {})


def test_columns_never_mix_protocols(tmp_path):
    a, b = '{"seed": 0}', '{"seed": 1}'
    mode0 = [("fid50k", 9, 1, a), ("fid50k", 7, 2, a), ("old", 1, 1, a), ("purity", 0.4, 2, a)]
    mode2 = [("fid50k", 8, 2, a), ("fid50k", 3, 2, b), ("purity", 0.6, 2, a)]
    runs = [some_run(tmp_path / "0-mode0", *mode0), some_run(tmp_path / "1-mode2", *mode2)]
    columns = {column.title: column for column in columns_of(runs)}
    assert list(columns) == ["fid50k (1)", "fid50k (2)", "purity"]
    assert columns["fid50k (1)"].values == [7, 8] and columns["fid50k (1)"].best == 7
    assert columns["fid50k (2)"].values == [None, 3] and columns["fid50k (2)"].best is None
    assert columns["purity"].best == 0.6
    assert short_names(runs) == ["0-mode0", "1-mode2"]


def test_which_way_is_better_is_said_where_a_metric_is_registered(monkeypatch):
    """Of every metric that there is; what nobody has said it of is never printed bold."""
    for name in metric_main.list_valid_metrics():
        assert metric_main._ways[name], name
    ways = dict(ppl_wend="lower", ppl2_wend_n500="lower", attribute_dependency_n9="lower", mig="higher", odd="neither")
    ways |= {"is50k_std": "neither", "selectivity_z_n24": "higher", "selectivity_chance": "neither", "ls_w": "lower"}
    ways |= {"pr50k3_full_recall_efficientnet-lite0_n200": "higher", "fid50k_full_vgg-hed": "lower"}
    assert {result: metric_main.better_way(result) for result in ways} == ways
    results = [[(name, 1, 2, "{}") for name in ways], [(name, 2, 2, "{}") for name in ways]]
    columns = columns_of([some_run(Path(f"{i}-run"), *each) for i, each in enumerate(results)])
    assert {column.title: column.best for column in columns} == {
        name: dict(lower=1, higher=2, neither=None)[way] for name, way in ways.items()
    }

    monkeypatch.setattr(metric_main, "_metrics", {})
    monkeypatch.setattr(metric_main, "_ways", {})

    @metric_main.register_metric  # as the reference has it
    def plain(_opts):
        return dict(any=1)

    @metric_main.register_metric(higher="good", lower="bad")
    def forgetful(_opts):
        return dict(good=1, new=2)

    assert metric_main.calc_metric("plain").results == dict(any=1) and metric_main.better_way("any") == "neither"
    with pytest.raises(TypeError, match="forgetful is registered with good, bad, and gives good, new"):
        metric_main.calc_metric("forgetful")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    data = make_dataset(folder / "discs.zip", count=40, labels="classes")
    for mode in (0, 2):
        run(
            "train_segan.py",
            f"--cfg=segan-mode{mode}",
            f"--data={data}",
            f"--outdir={folder / 'runs'}",
            "--kimg=1",
            *TINY,
        )
    return sorted((folder / "runs").iterdir())


def test_report(runs, tmp_path):
    args = ["--metrics=ppl_segan,subspaces", "--detector=pixel-pyramid", "--num-gen=8", "--seeds=0-3"]
    done = run("-m segan_ext report", *runs, *args, f"--outdir={tmp_path / 'out'}")
    assert done.stdout.count("ppl_segan\n") == 2 and done.stdout.count("subspaces\n") == 1  # mode 0 has none
    page = (tmp_path / "out" / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', page) and "http" not in page
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    files = [tmp_path / "out" / name for name in ("samples.png", "curves.png")]
    assert [base64.b64decode(data) for data in pictures] == [path.read_bytes() for path in files]
    assert PIL.Image.open(files[0]).size == (96 + 4 * 96, 16 + 2 * 96)

    text = (tmp_path / "out" / "report.md").read_text()
    header, _, first, second = (line for line in text.splitlines() if line.startswith("|"))
    columns = [cell.strip() for cell in header.split("|")[1:-1]]
    assert columns[:6] == ["run", "mode", "kimg", "parameters of G", "s/kimg", "variety"]
    assert columns[6:] == ["ppl_segan_pixel-pyramid_n8", "subspaces_deviation", "subspaces_rank"]
    assert [row.split("|")[2].strip() for row in (first, second)] == ["0", "2"] and "| – | – |" in first
    assert first.count("**") + second.count("**") == 2  # one of the two is better

    again = run("-m segan_ext report", *runs, *args, f"--outdir={tmp_path / 'out'}")  # nothing is computed twice
    assert "results" not in again.stdout and (tmp_path / "out" / "report.md").read_text() == text


def test_what_cannot_be_reported_is_explained(runs, tmp_path):
    (tmp_path / "empty").mkdir()
    for args, sentence in [
        ([tmp_path / "empty"], "is no training run"),
        ([*runs, "--metrics=fid"], "--metrics: there is no 'fid'"),
        ([*runs, "--metrics=fid50k_full", "--detector=pixel-pyramid"], "fid50k_full: this metric needs a detector"),
    ]:
        done = run("-m segan_ext report", *args, f"--outdir={tmp_path / 'out'}", check=False)
        assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr
        assert not (tmp_path / "out").exists()


def test_a_run_is_read(runs):
    found = read_run(runs[1])
    assert found.mode == "2" and found.kimg == 1 and found.snapshot.name == "network-snapshot-000001.pkl"
    losses = found.losses["Loss/G/loss"]
    stats = json.loads((runs[1] / "stats.jsonl").read_text().splitlines()[-1])
    assert losses[-1] == (stats["Progress/kimg"]["mean"], stats["Loss/G/loss"]["mean"])
