"""What `train_segan.py` adds to the host's recipe: default data, subspaces, and their loss."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # before a host is chosen nothing heavy is imported
    import torch


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
    for name in ("grid", "device", "detector", "num_gen", "attributes"):
        if options[name] is not None:
            raise ValueError(f"--{name.replace('_', '-')}: is an option of the bundled host; leave it or --host out")


def add_subspaces(args: dict[str, Any], options: dict[str, Any], mode: int, source: "torch.nn.Module | None") -> None:
    """Makes the arguments of the training loop those of `mode`, or of --mode where that is given.

    source: generator that --resume starts from, or None. Without subspaces of its own it gets ones that leave its
    images as they are. ValueError for options that do not go together.
    """
    from segan_ext.networks import check_basis_size, check_subspace_options  # on the host in use

    mode = mode if options["mode"] is None else options["mode"]
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
    if ortho < 0:
        raise ValueError("--ortho: must not be negative; 0 turns the penalty off")
    args["loss_kwargs"] |= dict(class_name="segan_ext.loss.SEGANLoss", ortho=ortho)
