"""Directions with a meaning: independent components, varimax, names from labels; and the metrics that measure them."""

import csv
import io
import json
import math
import unicodedata
from pathlib import Path

import numpy as np
import PIL.Image
import planted
import pytest
import torch
from test_attributes import LinearGenerator, Numbers, dropped
from test_calc_metrics import calc, lines, run_dir  # noqa: F401 (a fixture)
from test_own import NAMED, generator

from helpers import run
from segan_ext.control.alike import most_different, nearest_before, originals
from segan_ext.control.named import NamedDirection, as_file, named_directions, read_directions
from segan_ext.control.render import one_step, parse_edits, render
from segan_ext.directions import ica, named, probe, varimax
from segan_ext.directions.probe import Probe
from segan_ext.latents import random_ws, ws_of_seeds
from segan_ext.metrics import codes, selectivity
from segan_ext.metrics.attributes import Attribute, open_predictor
from segan_ext.metrics.labels import labels_of_columns, read_labels, summary, write_labels
from snapshots.load import load_generator

BENCH = Path(__file__).resolve().parents[1] / "benchmarks" / "bench"


class MixedSources(LinearGenerator):
    """w is a mix of independent uniform sources"""

    mixing_matrix = torch.from_numpy(np.random.RandomState(1).randn(8, 8)).float()

    def mapping(self, z, c, truncation_psi=1):
        sources = torch.erf(z.float() / math.sqrt(2)) * math.sqrt(3)
        return (sources @ self.mixing_matrix.t())[:, None].expand(-1, self.num_ws, -1)


def test_ica_finds_independent_sources():
    G = MixedSources()
    directions, deviations = ica.ica_of_w(G, 8)
    found = directions * deviations  # a column a source, in any order, with any sign
    overlap = (torch.linalg.inv(G.mixing_matrix.double()) @ found).abs()
    assert (overlap.max(dim=0).values > 0.95).all() and (overlap.sum(dim=0) < 1.25).all()
    assert deviations.tolist() == sorted(deviations.tolist(), reverse=True)


def test_varimax_turns_loadings_back():
    generator = torch.Generator().manual_seed(0)
    loadings = torch.block_diag(*(torch.rand(20, 1, generator=generator) + 0.5 for _ in range(5))).double()
    turned = loadings @ torch.linalg.qr(torch.randn(5, 5, generator=generator).double())[0]
    rotation = varimax._varimax(turned)
    torch.testing.assert_close(rotation.t() @ rotation, torch.eye(5).double())
    back = (turned @ rotation).abs()
    assert torch.allclose(back.sort(dim=1).values[:, :-1], torch.zeros(()).double(), atol=1e-3)


def test_what_is_alike_is_merged():
    a, b = torch.eye(4)[0], torch.eye(4)[1]
    signatures = torch.stack([3 * a, 2 * b, -a, b + 0.2 * a, torch.zeros(4)])
    assert originals(signatures) == [0, 1, 0, 1, 4]
    assert most_different(signatures, signatures.norm(dim=1), 9) == [(0, 1), (1, 1)]  # nothing is left beyond the two
    three = torch.stack([3 * a, 2 * a + 2 * b, 0.5 * b])
    assert most_different(three, three.norm(dim=1), 2) == [(0, 0), (2, 0)]
    assert most_different(three, torch.tensor([1.0, 2.0, 3.0]), 2) == [(2, 0), (0, 0)]  # in the order that is shown
    nearest = nearest_before(signatures)
    assert nearest[0] is None and nearest[4] is None and nearest[2] == (0, pytest.approx(-1)) and nearest[3][0] == 1


# ---------------------------------------------------------------------------------------------------------------------
# Names


def numbers_of(G):
    """`Scores` that read the eight numbers of a `LinearGenerator`"""
    read = lambda ws: G.synthesis(ws)[None, :, 0, 0, :]
    return named.Scores(G, read, [Attribute(name) for name in planted.VALUES], torch.ones(1, 8))


class WithBuffer(LinearGenerator):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.register_buffer("w_avg", torch.zeros(8))


def test_names_undo_a_mix_of_layers():
    G = WithBuffer(mixing=planted.mixed)
    found = named.find_named(G, numbers_of(G), steps=30)
    assert [each.name for each in found] == list(planted.VALUES)
    assert all(each.selectivity > 0.9 and max(each.leaks.values()) < 0.05 for each in found)
    assert all(each.high == -each.low > 0.9 and len(each.offsets) == len(planted.PLANTS) for each in found)
    ruler = selectivity.Ruler(G, Numbers())
    measured = selectivity.measure(ruler, [selectivity.Candidate(each.name, each.offsets) for each in found])
    assert measured.selectivity > 0.9 > 0.6 > selectivity.measure(ruler, selectivity.own_candidates(G)).selectivity
    ws = random_ws(G, 64, 9)  # +1 is one deviation, upwards
    with G.edited(offsets=found[2].offsets):
        high = ruler(G.synthesis(ws))
    change = (high - ruler(G.synthesis(ws))).mean(dim=0).abs()
    assert change[2].item() == pytest.approx(1, abs=0.15) and change.sum() < 1.2


def test_what_hardly_varies_is_not_held():
    """A change of it by a thousandth would be many of its deviations"""
    G = WithBuffer(mixing=dropped)
    read = lambda ws: G.synthesis(ws)[None, :, 0, 0, :]
    scores = named.Scores(G, read, Numbers.attributes, torch.ones(1, 8), deviations=Numbers.deviations)
    first, *_, last = planted.VALUES
    (found,) = named.find_named(G, scores, [first], steps=0)
    assert scores.steady == {last} and found.selectivity > 0.95 and last not in found.leaks


def test_what_is_not_held_may_change():
    matrix = torch.from_numpy(np.random.RandomState(2).randn(8, 8)).float()  # attributes go together
    G = WithBuffer(mixing=lambda c: c @ matrix)
    first, second, *rest = planted.VALUES
    (alone,) = named.find_named(G, numbers_of(G), [first], hold=[second], steps=0)
    assert alone.leaks[second] < 0.05 < 0.3 < max(alone.leaks[name] for name in rest)


def test_plus_leads_to_the_second_answer_or_to_the_one_that_is_said(monkeypatch):
    """From the labels of emoji, which are no and yes"""
    for name, few in dict(_JACOBIANS=32, _TRIED=16, _HELD_OUT=16, _RANDOM=2, _RENDERED=1).items():
        monkeypatch.setattr(named, name, few)  # latents and directions: the sign needs few
    G = named.as_editable(load_generator(str(BENCH.parent / "emoji" / "generator.safetensors")).eval())
    scores, _ = named.scores_of(G.requires_grad_(False), BENCH.parent / "emoji" / "labels.csv")
    warm, large = named.find_named(G, scores, ["warm", "large"], steps=0, towards=dict(warm="no"))
    assert (warm.towards, large.towards) == ("no", "yes") and ", + is yes" in large.said()
    outputs = [f"{a.name} {value}" for a in scores.attributes for value in a.values]
    for each, more, less in ((warm, "no", "yes"), (large, "yes", "no")):
        change = scores.towards(random_ws(G, 32, 9), each.offsets)
        assert change[outputs.index(f"{each.name} {more}")] > 0.5
        assert change[outputs.index(f"{each.name} {less}")] < -0.5


@pytest.fixture(scope="module")
def bench():
    """(the bench's generator with subspaces, 80 labelled seeds as a CSV would hold them)"""
    G = named.as_editable(load_generator(str(BENCH / "generator.safetensors")).eval().requires_grad_(False))
    labeller = open_predictor(BENCH / "predictor-labels.safetensors")
    said = labeller(G.synthesis(ws_of_seeds(G, range(80)), noise_mode="const"))
    hair = [f"{x:.3f}" for x in said["hairColor"][:, 0].tolist()]
    values = next(a.values for a in labeller.attributes if a.name == "eyesVariant")
    eyes = [values[i] for i in said["eyesVariant"].argmax(dim=1)]
    shift = [f"{x:.3f}" for x in said["translateX"][:, 0].tolist()]
    answers = {i: dict(hair=hair[i], eyes=eyes[i], shift=shift[i]) for i in range(80)}
    answers[3]["eyes"] = ""
    return G, answers


def test_a_probe_reads_what_the_labels_say(bench):
    G, answers = bench
    columns = {name: [said[name] for said in answers.values()] for name in ("hair", "eyes")}
    labels = labels_of_columns("seed", list(answers), columns)
    assert math.isnan(labels.rows[3, 1]) and labels.attributes[1].values == ("glasses", "open", "sunglasses")
    learned = Probe(G, ws_of_seeds(G, labels.keys), labels.attributes, labels.rows)
    assert learned.skill["hair"] > 0.9 and learned.skill["eyes"] > 0.6
    labeller = open_predictor(BENCH / "predictor-labels.safetensors")
    ws = random_ws(G, 200, 7)
    known, read = labeller(G.synthesis(ws, noise_mode="const")), learned.mean(ws)
    assert np.corrcoef(read[:, 0], known["hairColor"][:, 0])[0, 1] > 0.95
    values = next(a.values for a in labeller.attributes if a.name == "eyesVariant")
    same = [labels.attributes[1].values[i] for i in read[:, 1:4].argmax(dim=1)]
    assert np.mean([a == values[i] for a, i in zip(same, known["eyesVariant"].argmax(dim=1))]) > 0.85


def test_leaving_one_out_is_what_it_says(monkeypatch):
    monkeypatch.setattr(probe, "_PENALTIES", (0.5,))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 30, generator=generator).double() + 1
    y = x[:, 0] + 0.3 * torch.randn(20, generator=generator).double() + 2
    errors = []
    for i in range(20):
        others = [j for j in range(20) if j != i]
        weights, bias, _ = probe._ridge(x[others], y[others])
        errors.append((x[i] @ weights + bias - y[i]).item() ** 2)
    assert probe._ridge(x, y)[2].item() == pytest.approx(np.mean(errors))


def test_discover_names_explore_and_edit(bench, tmp_path):
    """From a CSV to a named slider in a picture and an edit that replays."""
    write_labels(tmp_path / "labels.csv", "seed", bench[1])
    start = ["-m segan_ext"]
    source, found = BENCH / "generator.safetensors", tmp_path / "named.safetensors"
    options = [f"--network={source}", "--method=labels", f"--labels={tmp_path / 'labels.csv'}", f"--dest={found}"]
    said = run(*start, "discover", *options, "--names=hair,shift", "--steps=20").stdout
    assert "hair: from -" in said and "each 1 of it also moves" in said
    G = load_generator(str(found))
    assert list(G.named_offsets()) == ["hair", "shift"] and G.directions[0]["source"] == "80 labelled images"
    plain = load_generator(str(source))
    ws = ws_of_seeds(G, [0, 1])
    assert torch.equal(G.synthesis(ws, noise_mode="const"), plain.synthesis(ws, noise_mode="const"))
    # the slider moves what it is called after, and not the other
    labeller = open_predictor(BENCH / "predictor-labels.safetensors")
    ruler = selectivity.Ruler(G, labeller, ["hairColor", "translateX", "rotate"])
    ws = random_ws(G, 64, 5)
    change = ruler(render(G, ws, {"hair": +1}, noise_mode="const")) - ruler(
        render(G, ws, {"hair": -1}, noise_mode="const")
    )
    hair, shift, tilt = change.mean(dim=0).tolist()
    assert hair > 1.2 and abs(shift) < 0.3 and abs(tilt) < 0.3

    said = run(
        *start, "explore", f"--network={found}", f"--dest={tmp_path / 'rows.png'}", "--rows=2", "--steps=3"
    ).stdout
    assert "hair" in said and "of what it moves" in said and (tmp_path / "rows.png").exists()
    edit = ["edit", f"--network={found}"]
    run(*start, *edit, "--seeds=0", "--set", "hair=-1.5", "--set", "L1.N0.D3=1", f"--outdir={tmp_path / 'a'}")
    assert json.loads((tmp_path / "a" / "edit.json").read_text())["edits"] == {"hair": -1.5, "L1.N0.D3": 1}
    run(*start, *edit, f"--replay={tmp_path / 'a' / 'edit.json'}", f"--outdir={tmp_path / 'b'}")
    assert (tmp_path / "a" / "seed0000.png").read_bytes() == (tmp_path / "b" / "seed0000.png").read_bytes()
    said = run(*start, *edit, "--seeds=0", "--set", "beard=1", f"--outdir={tmp_path / 'c'}", check=False).stderr
    assert "no named direction; there is hair, shift" in said
    said = run(*start, "discover", *options, "--names=beard", check=False).stderr
    assert "--names: beard is no attribute of" in said


def test_sliders_in_a_file_edit_a_plain_network(bench, tmp_path):
    G = bench[0]
    offsets = {layer: torch.full([s.dims], 0.1) for layer, s in G.subspaces().items()}
    slider = NamedDirection("hair", offsets, -2, 2, "", 0.5, dict(eyes=0.1), None, "test")
    (tmp_path / "sliders.json").write_text(json.dumps(as_file([slider])))
    found = read_directions(tmp_path / "sliders.json", G)["hair"]
    assert found._replace(offsets={}) == slider._replace(offsets={})
    assert all(torch.equal(found.offsets[layer], offset) for layer, offset in offsets.items())
    edit = ["edit", f"--network={BENCH / 'generator.safetensors'}"]
    options = ["--seeds=0", "--set", "hair=1", f"--directions={tmp_path / 'sliders.json'}"]
    run("-m segan_ext", *edit, *options, f"--outdir={tmp_path / 'a'}")
    run("-m segan_ext", *edit, f"--replay={tmp_path / 'a' / 'edit.json'}", f"--outdir={tmp_path / 'b'}")
    assert (tmp_path / "a" / "seed0000.png").read_bytes() == (tmp_path / "b" / "seed0000.png").read_bytes()
    moved = render(G, ws_of_seeds(G, [0]), {"hair": 1}, named={"hair": slider}, noise_mode="const")
    picture = np.asarray(PIL.Image.open(tmp_path / "a" / "seed0000.png"), int)
    assert abs(picture - (moved[0] * 127.5 + 127.5).clamp(0, 255).permute(1, 2, 0).numpy()).max() <= 1

    for change, said in [
        (dict(version=2), "of version 2"),
        (dict(format="other"), "holds no directions"),
        (dict(directions=[1]), "damaged"),
        (dict(directions=[as_file([slider._replace(low=3)])["directions"][0]]), "no range that makes sense"),
        (dict(directions=[as_file([slider])["directions"][0] | dict(offsets={"L0.N0": [1, 2]})]), "another generator"),
        (dict(directions=[as_file([slider])["directions"][0] | dict(leaks=[1])]), "damaged"),
    ]:
        (tmp_path / "wrong.json").write_text(json.dumps(as_file([slider]) | change))
        with pytest.raises(ValueError, match=said):
            read_directions(tmp_path / "wrong.json", G)


def test_names_are_added_and_replaced(bench):
    G = bench[0]
    layer, K = next((layer, s.dims) for layer, s in G.subspaces().items())
    direction = NamedDirection("hair", {layer: torch.arange(K).float()}, -2, 2, "", 0.5, dict(eyes=0.1), source="test")
    once = named.with_named(G, [direction])
    twice = named.with_named(once, [direction._replace(high=3), direction._replace(name="eyes")])
    assert [(each.name, each.high) for each in named_directions(twice).values()] == [("hair", 3), ("eyes", 2)]
    assert torch.equal(twice.named_offsets()["hair"][layer], direction.offsets[layer])
    assert list(twice.named_offsets()["hair"]) == [layer] and parse_edits(twice, {"eyes": 1}) == {"eyes": 1.0}
    ws = ws_of_seeds(G, [0])
    assert torch.equal(twice.synthesis(ws, noise_mode="const"), G.synthesis(ws, noise_mode="const"))
    assert one_step(twice, next(iter(parse_edits(twice, {"hair": 1}))), None).keys() == {layer}


# ---------------------------------------------------------------------------------------------------------------------
# Labels in a file


def test_labels_that_tell_nothing_are_refused(tmp_path):
    """Answers that have nothing to do with the images: no attribute is found, and that is said."""
    write_labels(tmp_path / "labels.csv", "seed", {i: dict(x=["yes", "no"][i % 3 % 2]) for i in range(12)})
    given = [f"--network={BENCH / 'generator.safetensors'}", "--method=labels", f"--labels={tmp_path / 'labels.csv'}"]
    done = run("-m segan_ext discover", *given, f"--dest={tmp_path / 'x.safetensors'}", check=False)
    assert done.returncode == 2 and "no attribute can be told from" in done.stderr and "Traceback" not in done.stderr
    assert "12 images are labelled:\n  x: no 4, yes 8\n" in done.stdout


def test_labels_are_written_and_read(tmp_path):
    path = tmp_path / "labels.csv"
    write_labels(
        path,
        "seed",
        {4: dict(glasses="yes", tilt="0.5"), 7: dict(glasses="no"), 9: dict(tilt="-1"), 11: dict(tilt="0")},
    )
    found = read_labels(path)
    assert found.kind == "seed" and found.keys == [4, 7, 9, 11]
    assert found.attributes == [Attribute("glasses", ("no", "yes")), Attribute("tilt")]
    assert found.rows[0, 0] == 1 and found.rows[1, 0] == 0 and found.rows[2:, 0].isnan().all()
    tilt = found.rows[[0, 2, 3], 1]
    assert tilt.mean().abs() < 1e-9 and tilt.std() == pytest.approx(1) and found.rows[1, 1].isnan()


@pytest.mark.parametrize(
    ("text", "said"),
    {
        "empty": ("", "the first line of labels is seed"),
        "no key": ("glasses\nyes\n", "the first line of labels is seed"),
        "twice": ("seed,a\n1,x\n1,y\n", "the seed 1 is there twice"),
        "short": ("seed,a\n1\n", "row 2 has 1 cells, the first line 2"),
        "same": ("seed,a\n1,x\n2,x\n", "a needs two different answers at least"),
        "no seed": ("seed,a\n-1,x\n2,y\n", "'-1' is no seed"),
        "two names": ("seed,a,a\n1,x,y\n", "a name of its own"),
        "nothing": ("seed,a\n", "has no labelled images"),
    }.values(),
)
def test_wrong_labels_are_explained(tmp_path, text, said):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_labels(tmp_path / "labels.csv")


@pytest.mark.parametrize("nothing", ["nan", "NaN", "N/A", "na", "NULL", "?", "", "#N/A"])
def test_words_for_nothing_say_nothing(tmp_path, nothing):
    rows = "".join(f"{i},{i / 7},{['Long', 'long', 'SHORT', 'short'][i % 4]}\n" for i in range(9))
    (tmp_path / "labels.csv").write_text(f"seed,tilt,hair\n{rows}9,{nothing},{nothing}\n")
    found = read_labels(tmp_path / "labels.csv")
    assert found.attributes == [Attribute("tilt"), Attribute("hair", ("Long", "SHORT"))]
    assert found.rows[9].isnan().all() and found.rows[:9].isfinite().all() and found.cells["tilt"][9] == ""
    said = summary(found.attributes, found.rows)
    assert said == ["tilt: a number, 9 values; 1 not said", "hair: Long 5, SHORT 4; 1 not said"]


def test_of_one_answer_in_two_spellings_the_more_frequent_counts(tmp_path):
    (tmp_path / "labels.csv").write_text("seed,a,b,c\n0,Yes,0,x\n1,yes,1.0,y\n2,yes,1,x\n3,no,0.0,y\n")
    found = read_labels(tmp_path / "labels.csv")
    assert [a.values for a in found.attributes] == [("no", "yes"), ("0", "1"), ("x", "y")]
    assert found.rows[:, 0].tolist() == [1, 1, 1, 0] and found.rows[:, 1].tolist() == [0, 1, 1, 0]


def test_a_number_that_is_mistyped_is_named(tmp_path):
    (tmp_path / "labels.csv").write_text("seed,tilt\n" + "".join(f"{i},{i / 7}\n" for i in range(60)) + "60,1o\n")
    with pytest.raises(ValueError, match="61 different values; 50 are the most, and '1o' is no number"):
        read_labels(tmp_path / "labels.csv")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_as_spreadsheets_save_them(tmp_path, separator, encoding):
    rows = [
        ["Image", "hair, colour", "tilt"],
        ["é/a.png", "blond", "-0.5"],
        ["b.png", "red", "1,5"],
        ["c.png", "", "2"],
    ]
    rows = [[cell.replace(",", ".") if cell == "1,5" and separator == "," else cell for cell in row] for row in rows]
    text = io.StringIO()
    csv.writer(text, delimiter=separator).writerows(rows)
    (tmp_path / "labels.csv").write_bytes(unicodedata.normalize("NFD", text.getvalue()).encode(encoding))
    found = read_labels(tmp_path / "labels.csv")
    assert found.kind == "image" and found.keys == ["é/a.png", "b.png", "c.png"]
    assert found.attributes == [Attribute("hair, colour", ("blond", "red")), Attribute("tilt")]
    mean, deviation = found.units[1]
    assert (found.rows[:, 1] * deviation + mean).tolist() == pytest.approx([-0.5, 1.5, 2])


def test_files_that_are_no_text_are_explained(tmp_path):
    (tmp_path / "labels.csv").write_bytes("seed,a\n1,schön\n".encode("latin-1"))
    with pytest.raises(ValueError, match="is no CSV.*save it in UTF-8"):
        read_labels(tmp_path / "labels.csv")
    with pytest.raises(OSError, match="cannot be read"):
        read_labels(tmp_path)


# ---------------------------------------------------------------------------------------------------------------------
# Metrics


def test_entropies_of_known_effects():
    assert selectivity.entropies(torch.eye(5)) == pytest.approx((1, 1))
    assert selectivity.entropies(torch.ones(5, 4)) == pytest.approx((0, 0), abs=1e-9)
    two_each = torch.eye(4).repeat_interleave(2, dim=0)  # two dimensions an attribute
    d, c = selectivity.entropies(two_each)
    assert d == pytest.approx(1) and c == pytest.approx(1 - math.log(2) / math.log(8))
    assert selectivity.entropies(torch.zeros(3, 2)) == (0, 0)
    assert selectivity.entropies(two_each[:4], 16)[1] == pytest.approx(1 - math.log(2) / math.log(16))  # copies left


def test_chance_of_own_coordinates_moves_what_they_move():
    """A generator that nobody has trained has no better axes than any others: neither far above chance nor below"""
    torch.manual_seed(2)
    G, matrix = generator("named", NAMED), torch.randn(48, 4)

    class Pixels(Numbers):
        attributes, deviations = [Attribute(name) for name in "abcd"], {}
        reliable = staticmethod(lambda: list("abcd"))
        scores = staticmethod(
            lambda images: dict(
                zip("abcd", (torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1) @ matrix).t()[..., None])
            )
        )

    ruler, own = selectivity.Ruler(G, Pixels()), selectivity.control_candidates(G, 8)
    rotated = [selectivity.rotated_controls(G, len(own), seed) for seed in range(10)]
    assert all(len(each) == len(own) == 4 for each in rotated)
    (first, *_), layers = rotated[0], set(G.subspaces())
    assert set(first.offsets) == layers  # and one change of e in all of them
    assert all(torch.equal(offset, first.offsets[0, 0]) for offset in first.offsets.values())
    (d, c), *others = (
        selectivity.entropies(selectivity.effects_of(ruler, each, latents=32), 4) for each in (own, *rotated)
    )
    for i, score in enumerate((d, c)):
        assert abs(selectivity.z_score(score, [other[i] for other in others])) < 3
    plain = LinearGenerator()
    assert [len(c.offsets) for c in selectivity.rotated_controls(plain, 11)] == [len(plain.subspaces())] * 11


def test_effects_of_copies_count_once():
    G = LinearGenerator()
    ruler = selectivity.Ruler(G, Numbers())
    (some, *_) = own = [c for c in selectivity.own_candidates(G) if c.name in ("L0.N0.D5", "L0.N0.D6", "L1.N1.D2")]
    copy = selectivity.Candidate("copy", {layer: -0.5 * offset for layer, offset in some.offsets.items()})
    found = selectivity.effects_of(ruler, [copy, *own])
    assert found.shape == (3, 8) and selectivity.entropies(found) == pytest.approx((1, 1))


def test_codes_of_known_factors():
    rng = torch.Generator().manual_seed(0)
    values = torch.randint(3, [4000], generator=rng)
    number = torch.rand(4000, generator=rng).double()
    attributes, rows = [Attribute("a", ("x", "y", "z")), Attribute("b")], torch.stack([values.double(), number], dim=1)
    noise = torch.randn(4000, 2, generator=rng)
    alone = torch.cat([values[:, None] + 0.01 * noise[:, :1], number[:, None].float(), noise[:, 1:]], dim=1)
    gaps = codes.information_gaps(alone, [1] * 3, attributes, rows)
    assert gaps[0] > 0.9 and gaps[1] > 0.9
    assert codes.held_factor_accuracy(alone, [1] * 3, attributes, rows, rng) > 0.98
    twice = torch.cat([alone, alone], dim=1)
    assert max(codes.information_gaps(twice, [1] * 6, attributes, rows)) < 0.05
    nothing = torch.randn(4000, 4, generator=rng)
    assert codes.held_factor_accuracy(nothing, [1] * 4, attributes, rows, rng) < 0.6
    assert abs(codes._information(values, values) - math.log(3)) < 0.01


def test_values_of_one_coordinate_are_one_code():
    rng = torch.Generator().manual_seed(0)
    values, glasses = torch.randint(3, [4000], generator=rng), torch.randint(2, [4000], generator=rng)
    attributes = [Attribute("a", ("x", "y", "z")), Attribute("b", ("no", "yes"))]
    rows = torch.stack([values, glasses], dim=1).double()
    likely = torch.cat([torch.nn.functional.one_hot(each) for each in (values, glasses)], dim=1).float()
    likely += 0.05 * torch.rand(4000, 5, generator=rng)  # an encoder is never quite sure
    assert codes.information_gaps(likely, [3, 2], attributes, rows) == pytest.approx([1, 1], abs=0.01)
    assert codes.held_factor_accuracy(likely, [3, 2], attributes, rows, rng) == 1
    # a single code has no next; one that never changes says nothing of what was held
    assert codes.information_gaps(likely[:, :3], [3], attributes[:1], rows[:, :1]) == pytest.approx([1], abs=0.01)
    dead = torch.cat([likely, torch.ones(4000, 1)], dim=1)
    assert codes.held_factor_accuracy(dead, [3, 2, 1], attributes, rows, rng) == 1
    few = torch.arange(15.0).double()[:, None]
    with pytest.raises(ValueError, match="tilt cannot be held still: no two of 15 images have the same value"):
        codes.held_factor_accuracy(torch.randn(15, 2), [1, 1], [Attribute("tilt")], few, rng)


def test_an_encoder_reads_codes_in_their_units():
    G = generator("named", NAMED)  # a number, three values, two values
    encoder = codes.train_encoder(G, dims=1, pairs=16, batch=8)
    assert encoder.widths == [1, 3, 2]
    with torch.no_grad():
        encoder.network.trunk.b4.out.weight.zero_()
        encoder.network.trunk.b4.out.bias.zero_()
    shares = [share for group in NAMED if "shares" in group for share in group["shares"]]
    assert encoder(torch.zeros(1, 3, 16, 16))[0, 1:].tolist() == pytest.approx(shares, abs=0.02)  # the mean


@pytest.mark.slow
def test_an_encoder_is_asked_about_real_images(tmp_path):
    data, found = tmp_path / "bench.zip", tmp_path / "pca.safetensors"
    run("-m segan_ext", "avatars", "--recipe=bench", "--count=200", f"--dest={data}")
    source = BENCH / "generator.safetensors"
    run("-m segan_ext", "discover", f"--network={source}", "--method=pca", "--dims=4", f"--dest={found}")
    options = ["--metrics=mig,factorvae", f"--data={data}", "--num-gen=640"]
    done = run("-m segan_ext", "calc_metrics", f"--network={found}", *options)
    mig, factorvae = (line["results"] for line in lines(done))
    assert 0 <= mig["mig_n640"] < 0.5 and 0.1 <= factorvae["factorvae_n640"] <= 1
    assert lines(done)[0]["protocol"]["num_real"] == 200
