"""The metrics of meaning as `calc_metrics` knows them: selectivity, disentanglement, MIG, FactorVAE."""

import torch

from metrics import metric_utils
from metrics.metric_main import register_metric
from segan_ext.metrics import codes
from segan_ext.metrics.selectivity import (
    HELD_OUT,
    SELECTION,
    STEPS,
    Candidate,
    Ruler,
    chance,
    control_candidates,
    effects_of,
    entropies,
    measure,
    named_candidates,
    rotated_candidates,
    rotated_controls,
    strongest_candidates,
    z_score,
)
from segan_ext.metrics.shared import check_subspaces, counted, generator_of, open_predictor_of
from torch_utils import cached_weights

_DIMS = 8  # of a layer, the strongest: best of many, as the measure takes, needs the same number everywhere
_ROTATIONS = 20


def _ruler(opts):
    check_subspaces(opts)
    predictor, G = open_predictor_of(opts), generator_of(opts)
    opts.protocol |= dict(dims_a_layer=_DIMS, rotations=_ROTATIONS)
    opts.protocol["version"] = 2  # 1 compared names with directions of one layer, and what hardly varies swamped all
    return G, Ruler(G, predictor, seed=opts.seed or 0)


@register_metric(
    higher="selectivity selectivity_signed selectivity_worst selectivity_z",
    lower="attribute_dependency",
    neither="selectivity_chance",
)
@cached_weights.enabled()
def selectivity(opts: metric_utils.MetricOptions) -> dict[str, float]:
    """How selectively each attribute can be moved, beside random directions (needs attributes and subspaces)"""
    G, ruler = _ruler(opts)
    latents = opts.count(SELECTION + HELD_OUT)  # a third to choose on, the rest to report on
    counts = dict(selection=max(latents // 3, 1), held_out=max(latents - latents // 3, 1))
    opts.protocol |= dict(num_gen=latents, steps=list(STEPS))
    names, seed = named_candidates(G), opts.seed or 0
    candidates = strongest_candidates(G, _DIMS) + names
    own = measure(ruler, candidates, seed=seed, count=counted(opts, "selectivity"), **counts)
    progress = counted(opts, "selectivity of chance")
    others = chance(ruler, _DIMS, _ROTATIONS, seed, progress, controls=len(names), **counts)
    opts.details |= {score.attribute: score._asdict() for score in own.scores}
    opts.details["interval"] = dict(zip(("low", "high"), own.selectivity_interval))
    return dict(
        selectivity=own.selectivity,
        selectivity_signed=own.signed,
        selectivity_worst=own.worst.selectivity,
        attribute_dependency=own.dependency,
        selectivity_chance=sum(other.selectivity for other in others) / len(others),
        selectivity_z=z_score(own.selectivity, [other.selectivity for other in others]),
    )


@register_metric(higher="disentanglement completeness disentanglement_z completeness_z")
@cached_weights.enabled()
def disentanglement(opts: metric_utils.MetricOptions) -> dict[str, float]:
    """Whether a dimension moves one attribute, and an attribute has one dimension, of interventions (as DCI)"""
    G, ruler = _ruler(opts)
    seed = opts.seed or 0
    latents = opts.count(SELECTION)
    opts.protocol |= dict(num_gen=latents)
    own = control_candidates(G, _DIMS)
    if getattr(G, "own_controls", list)():
        rotated = [rotated_controls(G, len(own), seed + i) for i in range(_ROTATIONS)]
    else:
        rotated = [rotated_candidates(G, _DIMS, seed + i) for i in range(_ROTATIONS)]
    sets: list[list[Candidate]] = [own, *rotated]
    found = [
        entropies(effects_of(ruler, each, seed=seed, latents=latents), len(each))
        for each in counted(opts, "disentanglement")(sets)
    ]
    (d, c), others = found[0], found[1:]
    return dict(
        disentanglement=d,
        completeness=c,
        disentanglement_z=z_score(d, [other[0] for other in others]),
        completeness_z=z_score(c, [other[1] for other in others]),
    )


def _codes_of(opts):
    """(what an encoder says of the images of the data set, its codes' widths, the attributes, their rows)"""
    check_subspaces(opts)
    G = generator_of(opts)
    data, attributes, rows = codes.known(opts)
    pairs = opts.count(codes.PAIRS)
    opts.protocol |= dict(dims_a_layer=_DIMS, num_gen=pairs, num_real=len(rows))
    opts.protocol["version"] = 2  # 1 took each value of an own coordinate for a code
    encoder = codes.train_encoder(G, _DIMS, pairs, seed=opts.seed or 0, count=counted(opts, "encoder"))
    return codes.encoded(encoder, data, len(rows)), encoder.widths, attributes, rows


@register_metric(higher="mig")
def mig(opts: metric_utils.MetricOptions) -> dict[str, float]:
    """Mutual information gap: how much more the best dimension tells of an attribute than the next (needs factors)"""
    found, widths, attributes, rows = _codes_of(opts)
    gaps = codes.information_gaps(found, widths, attributes, rows)
    opts.details |= {a.name: dict(gap=gap) for a, gap in zip(attributes, gaps)}
    return dict(mig=sum(gaps) / len(gaps))


@register_metric(higher="factorvae")
def factorvae(opts: metric_utils.MetricOptions) -> dict[str, float]:
    """FactorVAE's score: how often the dimension that stays still tells which attribute was held (needs factors)"""
    found, widths, attributes, rows = _codes_of(opts)
    generator = torch.Generator().manual_seed(opts.seed or 0)
    return dict(factorvae=codes.held_factor_accuracy(found, widths, attributes, rows, generator))
