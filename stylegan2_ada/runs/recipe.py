"""From command-line options to the arguments of the training loop.

A recipe is data: the base configurations in `BASE_CONFIGS`, the augmentation pipelines, the pretrained networks. The
functions below turn the options of `train_options` into one dictionary for `training_loop`, each a part of it.
"""

import dataclasses
import os
from typing import Any

from snapshots import hub

_PRETRAINED = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/transfer-learning-source-nets/"

# Names that --resume takes.
PRETRAINED = {
    "ffhq256": _PRETRAINED + "ffhq-res256-mirror-paper256-noaug.pkl",
    "ffhq512": _PRETRAINED + "ffhq-res512-mirror-stylegan2-noaug.pkl",
    "ffhq1024": _PRETRAINED + "ffhq-res1024-mirror-stylegan2-noaug.pkl",
    "celebahq256": _PRETRAINED + "celebahq-res256-mirror-paper256-kimg100000-ada-target0.5.pkl",
    "lsundog256": _PRETRAINED + "lsundog-res256-paper256-kimg100000-noaug.pkl",
}


@dataclasses.dataclass(frozen=True)
class BaseConfig:
    """The numbers of one --cfg; the defaults are what the published StyleGAN2-ADA configurations share."""

    kimg: int = 25000  # thousands of real images shown to D
    batch: int = 32  # images a step, over all processes
    ref_gpus: int = 8  # processes the batch was meant for: each handles batch / ref_gpus images at a time
    mbstd: int = 4  # group size of D's minibatch standard deviation
    channel_base: int = 32768  # a layer has min(channel_base / resolution, channel_max) channels
    channel_max: int = 512
    lrate: float = 0.002  # Adam's, for G and D
    gamma: float = 10  # weight of R1
    ema: float = 10  # half-life of the EMA of G, in kimg
    ramp: float | None = None  # EMA half-life is at most that share of the run so far
    map: int = 8  # layers of the mapping network
    z_dim: int = 512
    w_dim: int = 512
    pl_weight: float = 2  # weight of the path length penalty
    style_mixing_prob: float = 0.9
    d_architecture: str = "resnet"
    aug: str = "ada"
    fp16_res: int = 4  # this many of the highest resolutions compute in half precision on CUDA
    conv_clamp: float | None = 256  # limit of activations, needed for half precision
    tick: int = 4  # kimg between status lines
    snap: int = 50  # ticks between snapshots


BASE_CONFIGS = {
    "stylegan2": BaseConfig(),
    "paper256": BaseConfig(batch=64, mbstd=8, channel_base=16384, lrate=0.0025, gamma=1, ema=20),
    "paper512": BaseConfig(batch=64, mbstd=8, lrate=0.0025, gamma=0.5, ema=20),
    "paper1024": BaseConfig(gamma=2),
    "cifar": BaseConfig(
        kimg=100000,
        batch=64,
        ref_gpus=2,
        mbstd=32,
        lrate=0.0025,
        gamma=0.01,
        ema=500,
        ramp=0.05,
        map=2,
        pl_weight=0,
        style_mixing_prob=0,
        d_architecture="orig",
    ),
}


def auto_config(gpus: int, resolution: int) -> BaseConfig:
    """The configuration `auto`, which depends on the number of GPUs and the resolution."""
    batch = max(min(gpus * min(4096 // resolution, 32), 64), gpus)
    return BaseConfig(
        batch=batch,
        ref_gpus=gpus,
        mbstd=min(batch // gpus, 4),
        channel_base=32768 if resolution >= 512 else 16384,
        lrate=0.002 if resolution >= 1024 else 0.0025,
        gamma=0.0002 * resolution**2 / batch,
        ema=batch * 10 / 32,
        ramp=0.05,
        map=2,
    )


_BLIT = dict(xflip=1, rotate90=1, xint=1)
_GEOM = dict(scale=1, rotate=1, aniso=1, xfrac=1)
_COLOR = dict(brightness=1, contrast=1, lumaflip=1, hue=1, saturation=1)
_FILTER, _NOISE, _CUTOUT = dict(imgfilter=1), dict(noise=1), dict(cutout=1)

AUGPIPES = {
    "blit": _BLIT,
    "geom": _GEOM,
    "color": _COLOR,
    "filter": _FILTER,
    "noise": _NOISE,
    "cutout": _CUTOUT,
    "bg": _BLIT | _GEOM,
    "bgc": _BLIT | _GEOM | _COLOR,
    "bgcf": _BLIT | _GEOM | _COLOR | _FILTER,
    "bgcfn": _BLIT | _GEOM | _COLOR | _FILTER | _NOISE,
    "bgcfnc": _BLIT | _GEOM | _COLOR | _FILTER | _NOISE | _CUTOUT,
}


# ---------------------------------------------------------------------------------------------------------------------
# Options


# ---------------------------------------------------------------------------------------------------------------------
# The arguments of the training loop


def build(
    options: dict[str, Any], config_name: str, config: Any, data: Any, device: str, gpus: int, cores: int
) -> tuple[str, dict[str, Any]]:
    """(description for the run directory's name, arguments of `training_loop`) for a set of options.

    options: values of `OPTIONS`, None where not given. config: `BaseConfig`, or an object with its attributes.
    data: the data set that `dataset_kwargs` describes. device: 'cpu', 'cuda', …. gpus: processes. cores: CPU cores of
    each.
    ValueError, one sentence, for options that do not go together.
    """
    seed = _or(options, "seed", 0)
    if not 0 <= seed < 2**31:
        raise ValueError(f"--seed: must lie between 0 and {2**31 - 1}, not {seed}")
    args = dict(num_gpus=gpus, device=device, random_seed=seed)
    args |= dict(training_set_kwargs=dataset_kwargs(options, data), data_loader_kwargs=_loader(options, device, cores))
    args |= _batches(options, config, gpus)
    args |= _networks(options, config, device, args["batch_gpu"], data.resolution)
    args |= _training(options, config)
    args |= _augmentation(options, config)
    args |= _schedule(options, config, device)
    args |= _transfer(options, args)
    name = f"auto{gpus}" if config_name == "auto" else config_name
    return _describe(options, data, name), args


def dataset_kwargs(options: dict[str, Any], data: Any = None) -> dict[str, Any]:
    """Arguments of `ImageFolderDataset`; with `data`, its resolution too."""
    subset = None if options["subset"] is None else _positive(options, "subset", 1)
    kwargs = dict(class_name="training.dataset.ImageFolderDataset", path=os.path.abspath(options["data"]))
    kwargs |= dict(use_labels=bool(options["cond"]), max_size=subset, xflip=bool(options["mirror"]))
    if subset:
        kwargs["random_seed"] = _or(options, "seed", 0)
    if data is not None:
        images = len(data) // 2 if kwargs["xflip"] else len(data)
        kwargs |= dict(resolution=data.resolution, max_size=images)
    return kwargs


def _loader(options, device, cores):
    workers = _or(options, "workers", max(min(cores - 1, 3), 0))
    if workers < 0:
        raise ValueError("--workers: must be 0 or more")
    prefetch = dict(prefetch_factor=2) if workers else {}
    return dict(pin_memory=device.startswith("cuda"), num_workers=workers, **prefetch)


def _batches(options, config, gpus):
    batch = _positive(options, "batch", config.batch)
    if batch % gpus:
        option = "gpus" if options["batch"] is None else "batch"
        raise ValueError(f"--{option}: {batch} images cannot be split between {gpus} processes; choose a multiple")
    default = batch // gpus if options["batch"] is not None else max(config.batch // max(config.ref_gpus, gpus), 1)
    batch_gpu = _positive(options, "batch_gpu", default)
    if (batch // gpus) % batch_gpu:
        raise ValueError(
            f"--batch-gpu: {batch // gpus} images a process cannot be split into parts of {batch_gpu}; choose a divisor"
        )
    mbstd = min(config.mbstd, batch_gpu)
    if batch_gpu % mbstd:
        raise ValueError(
            f"--batch: parts of {batch_gpu} images cannot be split into groups of {mbstd}, as D compares them; "
            f"choose a multiple of {mbstd}"
        )
    return dict(batch_size=batch, batch_gpu=batch_gpu)


def _networks(options, config, device, batch_gpu, resolution):
    on_cuda = device.startswith("cuda")
    half = not _or(options, "fp32", not on_cuda)
    if half and not on_cuda:
        raise ValueError("--fp32: half precision needs CUDA; leave it out elsewhere")
    if options["bf16"] and not half:
        raise ValueError("--bf16: there is no half precision without CUDA or with --fp32; leave one of them out")
    if _or(options, "channel_base", config.channel_base) < resolution:
        raise ValueError(f"--channel-base: must be at least the resolution, {resolution}")
    width = dict(
        channel_base=_positive(options, "channel_base", config.channel_base),
        channel_max=_positive(options, "channels", config.channel_max),
        num_fp16_res=config.fp16_res if half else 0,
        conv_clamp=config.conv_clamp if half else None,
    )
    G = dict(class_name="training.networks.Generator", z_dim=config.z_dim, w_dim=config.w_dim)
    G |= dict(mapping_kwargs=dict(num_layers=config.map), synthesis_kwargs=dict(width))
    D = dict(class_name="training.networks.Discriminator", architecture=config.d_architecture, **width)
    D |= dict(block_kwargs={}, mapping_kwargs={}, epilogue_kwargs=dict(mbstd_group_size=min(config.mbstd, batch_gpu)))
    if _or(options, "nhwc", half):
        G["synthesis_kwargs"]["fp16_channels_last"] = True
        D["block_kwargs"]["fp16_channels_last"] = True
    if options["freezed"]:
        D["block_kwargs"]["freeze_layers"] = _positive(options, "freezed", 0)
    return dict(G_kwargs=G, D_kwargs=D)


def _training(options, config):
    lrate, gamma = _or(options, "lrate", config.lrate), _or(options, "gamma", config.gamma)
    for name, value in (("lrate", lrate), ("gamma", gamma)):
        if value < 0:
            raise ValueError(f"--{name}: must not be negative")
    adam = dict(class_name="torch.optim.Adam", lr=lrate, betas=[0.0, 0.99], eps=1e-8)
    loss = dict(class_name="training.loss.StyleGAN2Loss", r1_gamma=gamma)
    loss |= dict(style_mixing_prob=config.style_mixing_prob, pl_weight=config.pl_weight)
    averaging = dict(ema_kimg=_or(options, "ema", config.ema), ema_rampup=config.ramp)
    return dict(G_opt_kwargs=adam, D_opt_kwargs=dict(adam), loss_kwargs=loss, **averaging)


def _augmentation(options, config):
    aug = _or(options, "aug", config.aug)
    for name, needed in (("p", "fixed"), ("target", "ada")):
        value = options[name]
        if value is not None and aug != needed:
            raise ValueError(f"--{name}: has a meaning only with --aug={needed}")
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"--{name}: must lie between 0 and 1, not {value:g}")
    if aug == "fixed" and options["p"] is None:
        raise ValueError("--aug: fixed needs the probability, --p")
    if aug == "noaug":
        if options["augpipe"] is not None:
            raise ValueError("--augpipe: has no meaning with --aug=noaug")
        return {}
    pipe = dict(class_name="training.augment.AugmentPipe", **AUGPIPES[_or(options, "augpipe", "bgc")])
    if aug == "fixed":
        return dict(augment_kwargs=pipe, augment_p=options["p"])
    return dict(augment_kwargs=pipe, ada_target=_or(options, "target", 0.6))


def _schedule(options, config, device):
    for name in ("detector", "num_gen", "attributes"):
        if options[name] is not None and not metric_names(options["metrics"] or ""):
            raise ValueError(f"--{name.replace('_', '-')}: has no effect without --metrics; leave it out")
    args = dict(total_kimg=config.kimg, kimg_per_tick=config.tick, cudnn_benchmark=True, metrics=[])
    args |= dict(image_snapshot_ticks=config.snap, network_snapshot_ticks=config.snap)
    args |= dict(grid_size=[8, 8] if device.startswith("cpu") else None, allow_tf32=bool(options["allow_tf32"]))
    if options["bf16"]:
        args["bf16"] = True
    return args | free_arguments(options)


def free_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the training loop, for the options given, that have no part in the arithmetic."""
    args = {}
    if options["kimg"] is not None:
        args["total_kimg"] = _positive(options, "kimg", None)
    if options["tick"] is not None:
        args["kimg_per_tick"] = options["tick"]
    if options["snap"] is not None:
        args["image_snapshot_ticks"] = args["network_snapshot_ticks"] = _positive(options, "snap", None)
    for name in ("keep", "save_minutes"):
        if options[name] is not None:
            args[name] = options[name]
    if options["metrics"] is not None:
        args["metrics"] = metric_names(options["metrics"])
    chosen = {name: options[name] for name in ("detector", "num_gen", "attributes")}
    if any(value is not None for value in chosen.values()):
        args["metric_kwargs"] = metric_kwargs(**chosen)
    if options["nobench"] is not None:
        args["cudnn_benchmark"] = not options["nobench"]
    if options["cuda_graphs"] is not None:
        args["cuda_graphs"] = options["cuda_graphs"]
    if options["grid"] is not None:
        args["grid_size"] = parse_grid(options["grid"])
    return args


def metric_names(text: str) -> list[str]:
    """The metrics in a comma-separated list; ValueError for one that does not exist."""
    from metrics import metric_main

    names = [name.strip() for name in text.split(",") if name.strip()]
    names = [] if [name.lower() for name in names] == ["none"] else names
    for name in names:
        if not metric_main.is_valid_metric(name):
            known = ", ".join([*metric_main.list_valid_metrics(), "none"])
            raise ValueError(f"--metrics: there is no {name!r}; known: {known}")
    return names


def metric_kwargs(detector: str | None, num_gen: int | None, attributes: str | None) -> dict[str, Any]:
    """Arguments of `MetricOptions` for the options of `METRIC_OPTIONS`.

    ValueError for a detector that does not open (one behind a URL is not tried), or missing attributes.
    """
    import dnnlib
    from metrics import detectors, metric_utils

    names = [name.strip() for name in (detector or "").split(",") if name.strip()]
    for name in names:
        try:
            if not dnnlib.util.is_url(name):
                if name not in detectors.OFFLINE and not os.path.exists(name):
                    known = ", ".join(detectors.OFFLINE)
                    raise ValueError(f"there is no {name!r}; give a file, a URL, or one of {known}")
                metric_utils.get_feature_detector(name)
        except (OSError, ValueError) as error:
            raise ValueError(f"--detector: {error}") from error
    if attributes is not None and not os.path.exists(attributes):
        raise ValueError(f"--attributes: {attributes} does not exist; give a data set or a classifier file")
    return dict(detectors=names, num_gen=num_gen, attributes=attributes)


def parse_grid(text: str) -> list[int]:
    """[columns, rows] of a text like 8x4; ValueError for any other."""
    try:
        columns, rows = (int(number) for number in text.lower().split("x"))
        assert columns > 0 and rows > 0
    except (ValueError, AssertionError) as error:
        raise ValueError(f"--grid: {text!r} is not of the form COLUMNSxROWS, like 8x4") from error
    return [columns, rows]


def _transfer(options, args):
    resume = options["resume"]
    if resume is None:
        if options["trust_pickle"]:
            raise ValueError("--trust-pickle: is about the pickle of --resume; leave it out")
        return {}
    if hub.is_export(resume):
        raise ValueError(f"--resume: {resume} is a generator without a discriminator; training starts from a snapshot")
    # Networks that know their task need no ramp, and ADA should find its p sooner.
    adapted = dict(ada_kimg=100) if "ada_target" in args else {}
    trust = dict(trust_pickle=True) if options["trust_pickle"] else {}
    return dict(resume_pkl=PRETRAINED.get(resume, resume), ema_rampup=None, **adapted, **trust)


def _describe(options, data, config_name):
    parts = [data.name]
    parts += ["cond"] * bool(options["cond"]) + ["mirror"] * bool(options["mirror"])
    parts += [f"subset{options['subset']}"] * bool(options["subset"]) + [config_name]
    for name in ("gamma", "kimg", "batch", "aug", "p", "target", "augpipe", "freezed"):
        value = options[name]
        if value is not None:
            label = "" if name in ("aug", "augpipe") else name
            parts.append(f"{label}{value:g}" if isinstance(value, float) else f"{label}{value}")
    if options["resume"] is not None:
        parts.append(f"resume{options['resume'] if options['resume'] in PRETRAINED else 'custom'}")
    return "-".join(parts)


def _or(options, name, default):
    return default if options[name] is None else options[name]


def _positive(options, name, default):
    value = _or(options, name, default)
    if value < 1:
        raise ValueError(f"--{name.replace('_', '-')}: must be at least 1, not {value}")
    return value
