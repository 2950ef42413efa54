"""Path length as published for SEGAN."""

from metrics import metric_utils
from metrics.metric_main import register_metric
from metrics.perceptual_path_length import compute_ppl


@register_metric(lower="ppl_segan")
def ppl_segan(opts: metric_utils.MetricOptions) -> dict[str, float]:
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
