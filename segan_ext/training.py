"""What `train_segan.py` adds to the host's recipe: default data, generators, subspaces, own coordinates, losses."""

import os
import re
from typing import TYPE_CHECKING, Any

from segan_ext import host

if TYPE_CHECKING:  # before a host is chosen nothing heavy is imported
    import torch

MODES = ("0", "1", "2", "3", "eigen", "named")
_OWN_DIM = {"eigen": 4, "named": 32}  # coordinates of a block; those without a name
_INFO = {"eigen": 0.05, "named": 0.5}
_STYLE_BASED = {"stylegan1": "StyleGAN1Generator", "traditional": "TraditionalGenerator"}


def default_data() -> str:
    """The built-in avatars at 64×64, drawn once and kept in the cache. Returns the path of their zip."""
    from segan_ext.data.avatars import cached_avatars  # needs DiceBear, which data of one's own does not

    print("No --data: training on the built-in avatars.")
    try:
        return str(cached_avatars())
    except ValueError as error:
        raise ValueError(f"--data: {str(error).removeprefix('--style: ')}; or name images of your own") from error


def check_options_for_foreign_host(options: dict[str, Any]) -> None:
    """ValueError for options that need what only the bundled host has."""
    resume = options["resume"]
    if resume == "latest" or os.path.isdir(resume or ""):
        raise ValueError("--resume: only the bundled host continues runs; give one of their .pkl, or no --host")
    if resume is not None and not options["trust_pickle"]:
        raise ValueError("--resume: a checkout's own loader runs the code in pickles; add --trust-pickle")
    if (options["gpus"] or 1) > 1:
        raise ValueError("--gpus: only the bundled host trains in several processes; leave it or --host out")
    for name in ("grid", "device", "keep", "save_minutes", "bf16", "cuda_graphs", "detector", "num_gen", "attributes"):
        if options[name] is not None:
            raise ValueError(f"--{name.replace('_', '-')}: is an option of the bundled host; leave it or --host out")


def begin_with_new_names(options: dict[str, Any]) -> None:
    """--resume=RUN with other --labels than the run's begins a new run from its newest snapshot: `options` then say so.

    The recipe and the data are those of the run, where the command line names no others.
    """
    from training.files import parse_json

    run_dir, labels = options["resume"], options["labels"]
    if labels is None or not os.path.isdir(run_dir or ""):
        return
    try:
        with open(os.path.join(run_dir, "training_options.json"), "rb") as file:
            before = parse_json(file.read(), dict)["options"]
        snapshots = sorted(name for name in os.listdir(run_dir) if re.fullmatch(r"network-snapshot-\d+\.pkl", name))
        if before.get("labels") == labels or not snapshots:
            return
    except (OSError, ValueError, KeyError, AttributeError):
        return  # what is wrong with it will be said where it is opened
    options["resume"] = os.path.join(run_dir, snapshots[-1])
    options["data"] = options["data"] or before.get("data")
    if options["cfg"] is None:
        options["cfg"] = before.get("cfg")
        options["mode"] = options["mode"] or "named"
    print(f"A new run begins from {options['resume']}: the labels are others than those of its run.")


def add_method(
    args: dict[str, Any],
    options: dict[str, Any],
    config: Any,
    networks: "dict[str, torch.nn.Module] | None",
    data: "torch.utils.data.Dataset",
) -> dict[str, bytes]:
    """Makes the arguments of the training loop those of a preset's generator and mode, and of the options given.

    config: a preset, or a configuration of the host's. networks: what --resume starts from, or None. data: the data
    set. Returns {name: content} of files that the run's directory has to hold. ValueError for options that do not go
    together.
    """
    kept, generator = {}, getattr(config, "generator", None)
    for name, fitting in (("adv", ("eigengan", *_STYLE_BASED)), ("grow_kimg", tuple(_STYLE_BASED))):
        if options[name] is not None and generator not in fitting:
            raise ValueError(f"--{name.replace('_', '-')}: belongs to --cfg={' or '.join(fitting)}")
    if generator is not None and host.is_foreign():
        raise ValueError(f"--cfg: {generator} trains on the bundled host; leave --host out")
    if generator == "eigengan":
        _add_eigengan(args, options, config, networks)
    else:
        kept = add_mode(args, options, getattr(config, "mode", 0), networks, data)
        if generator is not None:
            _add_style_based(args, options, generator, None if networks is None else networks["G_ema"])
    if generator is not None:
        _add_published_loss(args, options, config)
    return kept


def _add_eigengan(args, options, config, networks):
    """Its networks, which know no styles, labels or minibatch statistics."""
    of_subspaces = ("mode", "subspace_dim", "subspace_form", "train")
    of_own = ("prior", "bottleneck", "info", "labels", "num_labels")
    for name in (*of_subspaces, *of_own, "map", "mixing", "bf16", "nhwc"):
        if options[name] not in (None, "all"):
            raise ValueError(f"--{name.replace('_', '-')}: EigenGAN has no such thing; leave it out")
    if args["training_set_kwargs"]["use_labels"]:
        raise ValueError("--cond: EigenGAN has no place for labels; leave it out")
    width = {name: args["D_kwargs"][name] for name in ("channel_base", "channel_max")}
    G = dict(noise_dim=config.z_dim, own_dim=options["own_dim"] or config.own_dim, synthesis_kwargs=width)
    D = dict(width)
    if networks is not None:
        if getattr(networks["G_ema"], "mode", None) != "eigengan":
            raise ValueError("--resume: its generator is no EigenGAN; train one from scratch")
        kept = lambda net, names: {name: net.init_kwargs[name] for name in names}
        G, D = kept(networks["G_ema"], G), kept(networks["D"], D)
    module = "segan_ext.generators.eigengan"
    args["G_kwargs"] = dict(class_name=f"{module}.EigenGANGenerator", **G)
    args["D_kwargs"] = dict(class_name=f"{module}.EigenDiscriminator", **D)


def _add_style_based(args, options, generator, source):
    """StyleGAN's layers, or those without styles, in the place of StyleGAN2's; D grows where G does."""
    module, G, D = "segan_ext.generators.stylegan1", args["G_kwargs"], args["D_kwargs"]
    name = f"{module}.{_STYLE_BASED[generator]}"
    if source is not None and f"{type(source).__module__}.{type(source).__name__}" != name:
        raise ValueError(f"--resume: its generator is not of --cfg={generator}; train one from scratch")
    if G.get("mode") == 1:
        raise ValueError("--mode: 1 adds to what StyleGAN2's layers put out; this method has the others")
    if generator == "traditional" and options["mixing"] is not None:
        raise ValueError("--mixing: a generator without styles reads one w; leave it out")
    if G["mapping_kwargs"]["num_layers"] == 0:  # w is z, and the embedded label
        labels = args["training_set_kwargs"]["use_labels"]
        G["w_dim"] = G["z_dim"] * (2 if labels else 1)
        G["mapping_kwargs"]["embed_features"] = G["z_dim"]
    G["class_name"] = name
    width = {each: G["synthesis_kwargs"][each] for each in ("channel_base", "channel_max")}
    noise = generator == "stylegan1" and G["synthesis_kwargs"].get("use_noise", True)
    G["synthesis_kwargs"] = dict(width, use_noise=noise, grows=bool(options["grow_kimg"]))
    D["block_kwargs"]["resample_filter"] = [1, 2, 1]
    if options["grow_kimg"]:
        if D["class_name"] != "training.networks.Discriminator":
            raise ValueError("--grow-kimg: the encoder of own coordinates looks at whole images; leave it out")
        D["class_name"] = f"{module}.GrowingDiscriminator"


def _add_published_loss(args, options, config):
    """Adam's and the loss's numbers of the paper."""
    adv, loss = options["adv"] or config.adv, args["loss_kwargs"]
    for part in ("G_opt_kwargs", "D_opt_kwargs"):
        args[part]["betas"] = list(config.betas)
    if loss["class_name"] == "segan_ext.loss.CodeLoss":
        if options["adv"] is not None:
            raise ValueError("--adv: own coordinates have the logistic loss; leave it out")
        return
    grow_kimg = options["grow_kimg"] or 0
    loss |= dict(class_name="segan_ext.adversarial.PublishedLoss", kind=adv, grow_kimg=grow_kimg)
    loss |= dict(penalty_interval=config.penalty_interval, ortho=1.0 if options["ortho"] is None else options["ortho"])
    args |= dict(G_reg_interval=None, D_reg_interval=None)


def add_mode(
    args: dict[str, Any],
    options: dict[str, Any],
    mode: int | str,
    networks: "dict[str, torch.nn.Module] | None",
    data: "torch.utils.data.Dataset",
) -> dict[str, bytes]:
    """Makes the arguments of the training loop those of `mode`, or of --mode where that is given.

    networks: what --resume starts from, or None; for names that they do not have they get coordinates. data, and what
    is returned: as in `add_method`. ValueError for options that do not go together.
    """
    if options["mode"] is not None:
        mode = options["mode"] if options["mode"] in _INFO else int(options["mode"])
    belongs = dict(own_dim=tuple(_INFO), prior=("eigen",), labels=("named",), num_labels=("named",))
    belongs |= dict(bottleneck=tuple(_INFO), info=tuple(_INFO))
    for name, modes in belongs.items():
        if options.get(name) is not None and mode not in modes:
            raise ValueError(f"--{name.replace('_', '-')}: belongs to the mode {' or '.join(modes)}, not to {mode}")
    if mode in _INFO:
        return _add_own_coordinates(args, options, mode, networks, data)
    _add_subspaces(args, options, mode, None if networks is None else networks["G_ema"])
    return {}


def _add_own_coordinates(args, options, mode, networks, data):
    """Coordinates of one's own in G, an encoder that reads them in D, and the loss of both; files for the run."""
    from segan_ext import own
    from segan_ext.networks import OwnCoordinates

    if host.is_foreign():
        raise ValueError(f"--mode: {mode} trains on the bundled host; leave --host out")
    for name in ("subspace_dim", "subspace_form", "train"):
        if options[name] not in (None, "all"):
            raise ValueError(f"--{name.replace('_', '-')}: belongs to the modes 1 to 3, not to {mode}")
    if options["mixing"] is not None:
        raise ValueError("--mixing: would hide own coordinates from their encoder; leave it out")
    source, kept = None if networks is None else networks["G_ema"], {}
    if source is not None and options["own_dim"] is not None:
        raise ValueError("--own-dim: the generator of --resume has its own; leave it out")
    size = options["own_dim"] or _OWN_DIM[mode]
    if mode == "named":
        groups, kept = _labels(options, data, source)
        if source is None:
            groups = [*groups, own.unnamed_coordinates(size)]
        else:
            _add_names(args, networks, groups)
            groups = networks["G_ema"].init_kwargs["own"]
    elif source is not None and getattr(source, "mode", 0) != mode:
        raise ValueError(f"--resume: its generator has no own coordinates of mode {mode}; train one from scratch")
    elif source is not None:
        groups = source.init_kwargs["own"]
    else:
        resolution = args["training_set_kwargs"]["resolution"]
        groups = own.eigen_coordinates(resolution, size, options["prior"] or "uniform")
    counted, G = OwnCoordinates(groups), args["G_kwargs"]
    if source is None:
        G |= dict(z_dim=G["z_dim"] + counted.inputs, w_dim=G["w_dim"] + counted.outputs)
        G["synthesis_kwargs"]["use_noise"] = mode == "named"  # what noise would decide has a coordinate in eigen
    bottleneck = _bottleneck(options, None if networks is None else networks["G_ema"])
    G |= dict(class_name="segan_ext.networks.SEGANGenerator", mode=mode, own=groups, bottleneck=bottleneck)
    args["D_kwargs"] |= dict(class_name="segan_ext.encoder.EncoderDiscriminator", codes=counted.outputs)
    args["D_kwargs"] |= dict(projection=True) if mode == "named" else {}
    info = _INFO[mode] if options["info"] is None else options["info"]
    if mode == "named" and info == 0:
        raise ValueError(f"--info: {info:g} is no weight that serves; give more than 0, or leave it out")
    ortho = 1.0 if options["ortho"] is None else options["ortho"]
    args["loss_kwargs"] |= dict(class_name="segan_ext.loss.CodeLoss", ortho=ortho, style_mixing_prob=0)  # would hide e
    labels = dict(seed=args["random_seed"]) if mode == "named" else None
    args["loss_kwargs"] |= dict(groups=groups, info=info, labels=labels)
    return kept


def _bottleneck(options, source):
    """Whether w reaches the first block alone: as --bottleneck says, or the generator of --resume has it"""
    asked = options["bottleneck"]
    theirs = True if source is None else source.init_kwargs.get("bottleneck", True)
    if source is not None and asked not in (None, theirs):
        raise ValueError(f"--bottleneck: the generator of --resume has {str(theirs).lower()}; leave it out")
    return theirs if asked is None else asked


def _add_names(args, networks, groups):
    """Gives networks coordinates for those of `groups` that they do not have, and says so."""
    from segan_ext.added_names import discriminator_with_names, generator_with_names

    before = _names_of(networks["G_ema"])
    new = groups[len(before) :]
    try:
        if new:
            for name in ("G", "G_ema"):
                networks[name] = generator_with_names(networks[name], new)
        networks["D"] = discriminator_with_names(networks["D"], networks["G_ema"].mapping.own.outputs)
    except ValueError as error:
        raise ValueError(f"--resume: {error}") from error
    args["G_kwargs"] |= dict(z_dim=networks["G_ema"].z_dim, w_dim=networks["G_ema"].w_dim)
    if new:
        names = ", ".join(group["name"] for group in new)
        print(f"The generator of --resume gets coordinates for {names}; at first its images stay as they are.")


def _names_of(G):
    """Groups of named coordinates that a generator has, or None"""
    from segan_ext import own

    return own.named(G.init_kwargs["own"]) if getattr(G, "mode", 0) == "named" else []


def _labels(options, data, source):
    """(coordinates for --labels, those of the generator `source` first; files for the run)"""
    from segan_ext import labelled
    from segan_ext.metrics.labels import summary

    if options["labels"] is None:
        raise ValueError("--labels: the mode named needs labels of some images; give a CSV, or factors")
    try:
        found = labelled.read(data, options["labels"])
    except (OSError, ValueError) as error:
        raise ValueError(f"--labels: {error}") from error
    if options["num_labels"]:
        try:
            found = labelled.read(data, options["labels"], options["num_labels"])
        except ValueError as error:
            raise ValueError(f"--num-labels: {error}; use more") from error
    outside = f"; {found.left_out} more are not among the images of --subset" if found.left_out else ""
    print(f"{len(found.names)} images are labelled{outside}:")
    for line in summary(found.attributes, found.rows):
        print(f"  {line}")
    before = _names_of(source)
    groups = before + labelled.new_coordinates(found, before)
    try:
        names, rows = found.names, labelled.in_coordinates(found, groups)
    except ValueError as error:
        raise ValueError(f"--labels: do not fit the generator of --resume: they {error}") from error
    unitless = [group["name"] for group in groups if "shares" not in group and "unit" not in group]
    if unitless:
        print(
            f"The generator of --resume does not know in which unit {', '.join(unitless)} were labelled: from now on "
            "1 is a deviation of these labels, and 0 their mean."
        )
    unsaid = [group["name"] for group, column in zip(groups, rows.t()) if not column.isfinite().any()]
    if unsaid:
        names, rows = _with_labels_of_before(options["resume"], data, groups, before, names, rows, unsaid)
    return groups, {labelled.FILE: labelled.as_file(names, rows, groups)}


def _with_labels_of_before(resume, data, groups, before, names, rows, unsaid):
    """(names, rows) with the labels of the run that `resume` is a snapshot of, for names that are not labelled anew"""
    import torch

    from segan_ext import labelled

    path = os.path.join(os.path.dirname(resume or ""), labelled.FILE)
    try:
        with open(path, "rb") as file:
            old_names, old_rows = labelled.of_file(file.read(), before)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--labels: nothing is said of {', '.join(unsaid)}, which the generator of --resume has; label that too, "
            f"or start from a snapshot beside the {labelled.FILE} of its run"
        ) from error
    missing = set(old_names) - set(data.image_names())
    if missing:
        raise ValueError(
            f"--data: {data.path} does not have {min(missing)}, which the run of --resume knows {unsaid[0]} of; take "
            f"its data, or label {unsaid[0]} anew"
        )
    padded = torch.nn.functional.pad(old_rows, [0, len(groups) - len(before)], value=torch.nan)
    print(f"{', '.join(unsaid)}: as the run of --resume has it of {len(old_names)} images.")
    return labelled.merged(names, rows, old_names, padded)


def _add_subspaces(args, options, mode, source):
    """A subspace for every style layer of G; a source without any gets ones that leave its images as they are."""
    from segan_ext.networks import check_basis_size, check_subspace_options  # on the host in use

    dims, form = options["subspace_dim"], options["subspace_form"]
    source_mode = getattr(source, "mode", 0)
    if source_mode not in (0, mode):
        raise ValueError(f"--resume: its generator has subspaces of mode {source_mode}; use --mode={source_mode}")
    if mode == 0:
        for name in ("subspace_dim", "subspace_form", "ortho", "train"):
            if options[name] not in (None, "all"):
                raise ValueError(f"--{name.replace('_', '-')}: mode 0 has no subspaces; use --cfg=segan-mode2")
        return
    if options["train"] == "subspace" and source is None:
        raise ValueError("--train: subspace keeps the rest of a trained generator; name one with --resume")
    if source_mode != 0:
        theirs = {name: source.init_kwargs.get(name) for name in ("subspace_dim", "subspace_form")}
        for name, value in theirs.items():
            if options[name] not in (None, value):
                raise ValueError(f"--{name.replace('_', '-')}: the networks of --resume have {value}; leave it out")
        dims, form = theirs.values()
    G = args["G_kwargs"]
    try:
        check_subspace_options(mode, dims, form, G["w_dim"])
        if mode == 1:  # the largest basis is that of the highest resolution
            resolution, width = args["training_set_kwargs"]["resolution"], G["synthesis_kwargs"]
            channels = min(width["channel_base"] // resolution, width["channel_max"])
            check_basis_size(channels * resolution**2, dims or G["w_dim"])
    except ValueError as error:
        raise ValueError(f"--{str(error).replace('subspace_', 'subspace-')}") from error
    G |= dict(class_name="segan_ext.networks.SEGANGenerator", mode=mode, subspace_dim=dims, subspace_form=form)
    if source is not None and source_mode == 0:
        G["subspace_init"] = "identity"
    if options["train"] == "subspace":
        G["trained"] = "subspace"
    if mode == 3 and options["ortho"] is not None:
        raise ValueError("--ortho: mode 3 has no basis to keep orthonormal; leave it out")
    ortho = options["ortho"] if options["ortho"] is not None else float(form != "published")
    args["loss_kwargs"] |= dict(class_name="segan_ext.loss.SEGANLoss", ortho=ortho)
