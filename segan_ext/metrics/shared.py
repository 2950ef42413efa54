"""What the metrics of SEGAN share."""

from collections.abc import Callable, Iterable, Iterator

import torch

from metrics import metric_utils
from segan_ext.metrics.attributes import Predictor, open_predictor, source_digest
from torch_utils import cached_weights


def check_subspaces(opts: metric_utils.MetricOptions) -> None:
    """ValueError unless opts.G has subspaces and this is the only process."""
    if opts.num_gpus > 1:
        raise ValueError("this metric runs in one process; leave --gpus out")
    if not getattr(opts.G, "subspaces", dict)():
        raise ValueError("this network has no subspaces; give a snapshot of mode 1, 2 or 3")


def open_predictor_of(opts: metric_utils.MetricOptions) -> Predictor:
    """The predictor of opts.attributes, or of the data set. ValueError if it knows no attribute well enough."""
    path = opts.attributes or opts.dataset_kwargs.get("path")
    if path is None:
        raise ValueError("attributes are needed; give --attributes=PATH, a data set that has some or a classifier")
    if opts.num_gpus > 1:
        raise ValueError("this metric runs in one process; leave --gpus out")
    predictor = open_predictor(path, opts.device, progress=opts.progress.verbose)
    if not predictor.reliable():
        raise ValueError(f"no attribute of {predictor.name} can be told from its images; use more or larger ones")
    opts.protocol |= dict(attributes=predictor.name, attributes_digest=source_digest(path))
    opts.protocol |= dict(attribute_names=predictor.reliable(), resolution=opts.G.img_resolution)
    return predictor


def generator_of(opts: metric_utils.MetricOptions) -> torch.nn.Module:
    """opts.G in eval mode, without gradients, on the device of opts"""
    return opts.G.eval().requires_grad_(False).to(opts.device)


def counted(opts: metric_utils.MetricOptions, what: str) -> Callable[[Iterable], Iterator]:
    """A function that hands on the items it gets, and reports the progress of `what` over them"""

    def count(items):
        items = list(items)
        monitor = opts.progress.sub(what, len(items), flush_interval=1)
        for i, item in enumerate(items):
            yield item
            monitor.update(i + 1)

    return count


@cached_weights.enabled()
def latents_and_predictions(
    opts: metric_utils.MetricOptions, predictor: Predictor, batch: int = 32
) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """z [N, z_dim], one w [N, w_dim] each, and {attribute: predictions [N, k]}"""
    G, count = generator_of(opts), opts.count(200000)
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
