"""SEGAN's own metrics, beside the host's: path length as published, linear separability, purity, state of subspaces."""

import torch

from segan_ext import host

host.activate()

from calc_metrics import main as calc_metrics  # noqa: E402, F401 (the host has to be on the path; for `segan_ext.cli`)
from metrics import metric_utils  # noqa: E402
from metrics.metric_main import register_metric  # noqa: E402
from metrics.perceptual_path_length import compute_ppl  # noqa: E402
from segan_ext import attributes, separability  # noqa: E402
from segan_ext import purity as purities  # noqa: E402
from torch_utils import inference  # noqa: E402


@register_metric
def ppl_segan(opts):
    """Path length in z along 30 000 paths, ε = 0.01, whole picture, noise kept, mean of all

    The formula, ε, t and the count are the published ones of SEGAN; the rest, of which nothing is published, is ours.
    """
    opts.dataset_kwargs.update(max_size=None)
    ppl = compute_ppl(
        opts,
        num_samples=opts.count(30000),
        epsilon=1e-2,
        space="z",
        sampling="full",
        crop=False,
        batch_size=8,
        redraw_noise=False,
        percentiles=None,
    )
    return dict(ppl_segan=ppl)


@register_metric
def ls(opts):
    """Linear separability in z and in w over 200 000 images (needs attributes)

    The score is exp Σ H(Y|X) over attributes, so scores compare only for the same attributes. The details have the
    entropy of each, in nats.
    """
    separability.check_installed()
    predictor = _predictor(opts)
    z, w, predictions = _latents_and_predictions(opts, predictor)
    questions = separability.binary_attributes(
        predictions, [a for a in predictor.attributes if a.name in predictor.reliable()]
    )
    results = {}
    for name, latents in (("z", z), ("w", w)):
        results[f"ls_{name}"], entropies = separability.score(latents.numpy(), questions)
        opts.details |= {f"H({question} | {name})": entropy for question, entropy in entropies.items()}
    return results


@register_metric
def purity(opts):
    """How far single dimensions move single attributes, 1 being one attribute each (needs attributes and subspaces)"""
    _check_subspaces(opts)
    predictor, G = _predictor(opts), _generator(opts)
    dims = sum(subspace.dims for subspace in G.subspaces().values())
    samples = max(opts.count(16 * dims) // (2 * dims), 1)  # latents that every dimension is moved on
    opts.protocol["num_gen"] = opts.num_gen or "16 a dimension"
    with inference.folded():
        found = purities.measure(
            G, predictor, predictor.reliable(), samples, seed=opts.seed or 0, progress=_counted(opts)
        )
    opts.details |= {
        str(p.address): dict(purity=p.purity, strength=p.strength, attribute=p.attribute, effects=p.effects)
        for p in found
    }
    opts.details |= {f"L{L}.N{N}": dict(purity=value) for (L, N), value in purities.by_subspace(found).items()}
    return dict(purity=purities.overall(found))


@register_metric
def subspaces(opts):
    """Largest deviation from orthonormality of any basis, and the mean effective rank of the importances"""
    _check_subspaces(opts)
    states = purities.subspace_states(opts.G)
    opts.details |= {f"L{L}.N{N}": state._asdict() for (L, N), state in states.items()}
    bases = [state.orthogonality for state in states.values() if state.orthogonality is not None]
    rank = sum(state.effective_rank for state in states.values()) / len(states)
    return dict(subspaces_deviation=max(bases, default=0.0), subspaces_rank=rank)


def _check_subspaces(opts):
    if opts.num_gpus > 1:
        raise ValueError("this metric runs in one process; leave --gpus out")
    if not getattr(opts.G, "subspaces", dict)():
        raise ValueError("this network has no subspaces; give a snapshot of mode 1, 2 or 3")


def _predictor(opts):
    """The predictor of opts.attributes, or of the data set. ValueError if it knows no attribute well enough."""
    path = opts.attributes or opts.dataset_kwargs.get("path")
    if path is None:
        raise ValueError("attributes are needed; give --attributes=PATH, a data set that has some or a classifier")
    if opts.num_gpus > 1:
        raise ValueError("this metric runs in one process; leave --gpus out")
    predictor = attributes.open_predictor(path, opts.device, progress=opts.progress.verbose)
    if not predictor.reliable():
        raise ValueError(f"no attribute of {predictor.name} can be told from its images; use more or larger ones")
    opts.protocol |= dict(attributes=predictor.name, attributes_digest=attributes.source_digest(path))
    opts.protocol |= dict(attribute_names=predictor.reliable(), resolution=opts.G.img_resolution)
    return predictor


def _generator(opts):
    return opts.G.eval().requires_grad_(False).to(opts.device)


def _counted(opts):
    """For `purity.measure`: reports progress over the subspaces"""

    def count(addresses):
        monitor = opts.progress.sub("purity", len(addresses), flush_interval=1)
        for i, address in enumerate(addresses):
            yield address
            monitor.update(i + 1)

    return count


@inference.folded()
def _latents_and_predictions(opts, predictor, batch=32):
    """z [N, z_dim], one w [N, w_dim] each, and {attribute: predictions [N, k]}"""
    G, count = _generator(opts), opts.count(200000)
    opts.protocol |= dict(num_gen=count, resolution=G.img_resolution)
    draw_labels = metric_utils.label_sampler(opts, G)
    progress = opts.progress.sub("latents and attributes", count)
    parts, done = [], 0
    while done < count:
        size = min(batch, count - done)
        z = torch.randn([size, G.z_dim], device=opts.device)
        ws = G.mapping(z, draw_labels(size))
        predictions = predictor(G.synthesis(ws, noise_mode="const", **opts.G_kwargs))
        parts.append((z.cpu(), ws[:, 0].cpu(), {name: p.cpu() for name, p in predictions.items()}))
        done += size
        progress.update(done)
    z, w, predictions = zip(*parts)
    return torch.cat(z), torch.cat(w), {name: torch.cat([p[name] for p in predictions]) for name in predictions[0]}
