"""The options of the commands, what they are parsed to, and what turns refusals of libraries into usage errors."""

from __future__ import annotations

import contextlib
import difflib
import errno
import functools
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from runs.numbers import LARGEST_SEED, parse_numbers
from runs.outputs import check_directory, check_file, check_inputs_stay
from runs.recipe import AUGPIPES, PRETRAINED
from snapshots import box

if TYPE_CHECKING:  # slow to import
    import torch


@contextlib.contextmanager
def usage_errors(option: str = "") -> Iterator[None]:
    """Inside, an OSError or ValueError becomes a click.UsageError that names the option, where one is given."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise click.UsageError(f"{option}: {error}" if option else str(error)) from error


_NOT_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


_EMPTY = "{}: is empty; is a variable of the shell not set?"


class Command(click.Command):
    """A command in which a ValueError or OSError that begins with an option, as "--data: …", is a usage error.

    So is an option that is given nothing, as by a variable of the shell that is not set, and a number that is not
    finite. "~" at the beginning of a text is the user's home. A full or broken disk is a sentence too.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's. click.UsageError for values that no option can have."""
        parts = [str(arg).partition("=") for arg in args]
        empty = {name for name, equals, value in parts if equals and not value.strip()}
        empty |= {str(name) for name, value in zip(args, args[1:]) if not str(value).strip()}
        for param in self.params:
            if empty & set(param.opts) and param.metavar != "LIST":
                raise click.UsageError(_EMPTY.format(param.opts[0]))
        try:
            rest = super().parse_args(ctx, args)
        except click.MissingParameter:
            raise
        except click.BadParameter as error:  # click's own kinds of numbers
            raise click.UsageError(f"{error.param.opts[0]}: {error.message}" if error.param else str(error)) from error
        for param in self.params:
            if param.name in ctx.params:
                ctx.params[param.name] = _checked(param, ctx.params[param.name])
        _check_inputs_stay(self.params, ctx.params)
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        """What the callback returns. click.UsageError for its ValueError or OSError if that begins with an option.

        click.ClickException for a disk that does not take what the command writes.
        """
        try:
            return super().invoke(ctx)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in _NOT_WRITTEN:
                raise click.ClickException(f"{error.filename or 'a file'}: {error.strerror}") from error
            if not re.match("--[a-z]", str(error)):
                raise
            raise click.UsageError(str(error)) from error


command = functools.partial(click.command, cls=Command)


def _checked(param, value):
    if isinstance(value, tuple):
        return tuple(_checked(param, each) for each in value)
    if isinstance(param, click.Argument) and isinstance(value, str) and not value.strip():
        raise click.UsageError(_EMPTY.format(param.metavar or param.name))
    if isinstance(value, float) and not math.isfinite(value):
        raise click.UsageError(f"{param.opts[0]}: {value} is no number to work with")
    return os.path.expanduser(value) if isinstance(value, str) and value.startswith("~") else value


def _check_inputs_stay(params, values):
    """click.UsageError if a file that an option names for the result is one that another option reads"""
    outputs = [param for param in params if isinstance(param.type, OutputFile) and values.get(param.name)]
    inputs = [values[param.name] for param in params if param not in outputs and param.name in values]
    for output in outputs:
        with usage_errors(output.opts[0]):
            check_inputs_stay((each for each in inputs if isinstance(each, str)), [values[output.name]])


def refuse_given(options: Iterable[str], reason: str) -> None:
    """click.UsageError if one of these options, as "--trunc", was given, although it has no effect for this reason."""
    ctx = click.get_current_context()
    for param in ctx.command.params:
        default = ctx.get_parameter_source(param.name) is click.core.ParameterSource.DEFAULT
        if param.opts[0] in options and not default:
            raise click.UsageError(f"{param.opts[0]}: has no effect {reason}; leave it out")


class Numbers(click.ParamType):
    """The list that `parse_numbers` makes of a text."""

    name = "numbers"

    def convert(self, value: str | list[int], param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """The list of a text; a list stays as it is. click.UsageError, with the option, for a text that is none."""
        if isinstance(value, list):
            return value
        try:
            return parse_numbers(value)
        except ValueError as error:
            raise click.UsageError(f"{param.opts[0]}: {error}") from error


SEED = click.IntRange(0, LARGEST_SEED)


class OutputDir(click.ParamType):
    """A folder that results can be written to, which may not exist yet; checked before any work."""

    name = "directory"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The path, with "~" as the user's home. click.UsageError, with the option, for one that cannot be used."""
        return value if _is_default(param, ctx) else _usable(check_directory, value, param)


class OutputFile(click.ParamType):
    """A file that can be written, which may not exist yet; checked before any work. endings: those it may have."""

    name = "file"

    def __init__(self, *endings: str) -> None:
        self.endings = endings

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The path, with "~" as the user's home. click.UsageError, with the option, for one that cannot be used."""
        return value if _is_default(param, ctx) else _usable(lambda path: check_file(path, self.endings), value, param)


def _is_default(param, ctx):
    """True for a default, which the command checks if it comes to use it"""
    return ctx is not None and ctx.get_parameter_source(param.name) is click.core.ParameterSource.DEFAULT


def _usable(check, path, param):
    with usage_errors(param.opts[0]):
        return check(os.path.expanduser(path))


def open_generator(network: str, device: torch.device | str, trust: bool = False) -> torch.nn.Module:
    """The averaged generator of a pickle or export (`snapshots.load.load_generator`) on a device.

    click.UsageError if it cannot be opened.
    """
    from snapshots.load import load_generator  # here, since a host may not have been chosen before

    print(f"Loading networks from {network}...")
    with usage_errors("--network"):
        return load_generator(network, trust).to(device)


def generator_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: the options that choose a generator and the device it runs on."""
    options = [
        click.option(
            "--network",
            required=True,
            metavar="PKL",
            help="Network pickle (path or URL), .safetensors, hub:OWNER/NAME[@REVISION], or one of the box: "
            + ", ".join(box.names()),
        ),
        click.option("--trust-pickle", is_flag=True, help="Run the code in the pickle; only for files you trust"),
        click.option("--device", metavar="NAME", help="cpu, cuda  [default: cuda where there is one]"),
    ]
    return with_options(command, options)


def network_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: the options that all of the host's scripts around a generator share."""
    noise = click.option("--noise-mode", type=OneOf(["const", "random", "none"]), default="const", help="Noise")
    outdir = click.option("--outdir", type=OutputDir(), required=True, metavar="DIR", help="Where to save the images")
    return generator_options(with_options(command, [noise, outdir]))


class OneOf(click.ParamType):
    """A choice in small or capital letters, which names the nearest value when a word is misspelt."""

    name = "choice"

    def __init__(self, values: Iterable[str]) -> None:
        self.values = list(values)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """`[one|other|…]`, by which --help shows the values."""
        return f"[{'|'.join(self.values)}]"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The value, if it is one of those. click.UsageError that names the nearest for any other."""
        known = {each.lower(): each for each in self.values}
        if value.lower() in known:
            return known[value.lower()]
        near = [known[each] for each in difflib.get_close_matches(value.lower(), known, n=1, cutoff=0.4)]
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(self.values)}"
        raise click.UsageError(f"{param.opts[0]}: there is no {value!r}; {hint}")


# How metrics are computed, for training and calc_metrics.
METRIC_OPTIONS = [
    click.option(
        "--detector",
        metavar="LIST",
        help="Detectors instead of a metric's own: paths, URLs, efficientnet-lite0, vgg-hed, pixel-pyramid",
    ),
    click.option("--num-gen", type=click.IntRange(1), help="Images or pairs to generate instead of a metric's own"),
    click.option(
        "--attributes",
        metavar="PATH",
        help="Data with known attributes, or a classifier, for ls and purity  [default: the data set]",
    ),
]


# In the order of --help; every one is None unless given, and then the configuration decides.
OPTIONS = [
    click.option(
        "--outdir", type=OutputDir(), metavar="DIR", help="Where to save the results  [default: training-runs]"
    ),
    click.option("--gpus", type=int, help="Number of processes, one a GPU  [default: 1]"),
    click.option("--device", metavar="NAME", help="cpu, cuda, cuda:1  [default: cuda where there is one]"),
    click.option("--snap", type=int, help="Snapshot interval in ticks"),
    click.option("--keep", type=click.IntRange(1), help="States of the run to keep, to continue from  [default: 2]"),
    click.option(
        "--save-minutes",
        type=click.FloatRange(0),
        help="Save a state after so long without one; 0: every tick  [default: 10]",
    ),
    click.option("--tick", type=click.FloatRange(0, min_open=True), help="kimg between status lines"),
    click.option("--metrics", metavar="LIST", help="Comma-separated metrics to compute at snapshots  [default: none]"),
    *METRIC_OPTIONS,
    click.option("--seed", type=int, help="Random seed  [default: 0]"),
    click.option("-n", "--dry-run", is_flag=True, help="Print the training options and exit"),
    click.option("--data", metavar="PATH", help="Training images: a folder or a zip (dataset_tool.py makes one)"),
    click.option("--cond", type=bool, help="Train a conditional model on the data set's labels  [default: false]"),
    click.option("--subset", type=int, help="Train with only that many images  [default: all]"),
    click.option("--mirror", type=bool, help="Add a mirrored copy of every image  [default: false]"),
    click.option("--gamma", type=float, help="Weight of R1"),
    click.option("--kimg", type=int, help="Training duration in thousands of images"),
    click.option("--batch", type=int, help="Images a step, over all processes"),
    click.option("--batch-gpu", type=int, help="Images a process handles at a time; gradients are accumulated"),
    click.option("--channels", type=int, help="Most channels of a layer"),
    click.option("--channel-base", type=int, help="Channels times resolution, where that is less"),
    click.option("--lrate", type=float, help="Learning rate of G and D"),
    click.option("--ema", type=click.FloatRange(0), help="Half-life of the moving average of G's weights, in kimg"),
    click.option("--aug", type=OneOf(["noaug", "ada", "fixed"]), help="Augmentation  [default: ada]"),
    click.option("--p", type=float, help="Augmentation probability for --aug=fixed"),
    click.option("--target", type=float, help="Target of --aug=ada  [default: 0.6]"),
    click.option("--augpipe", type=OneOf(AUGPIPES), help="Augmentation pipeline  [default: bgc]"),
    click.option(
        "--resume",
        metavar="RUN_DIR|latest|PKL|URL|NAME",
        help=f"Continue a run exactly, or start from trained networks; names: {', '.join(PRETRAINED)}",
    ),
    click.option(
        "--trust-pickle", is_flag=True, default=None, help="Run the code in the pickle of --resume, if you trust it"
    ),
    click.option(
        "--freezed", type=click.IntRange(0), help="Keep that many of D's highest-resolution layers  [default: 0]"
    ),
    click.option("--fp32", type=bool, help="No half precision  [default: true on the CPU]"),
    click.option("--bf16", type=bool, help="Half precision in bfloat16, which cannot overflow  [default: false]"),
    click.option("--nhwc", type=bool, help="Channels-last memory format with half precision  [default: true]"),
    click.option("--nobench", type=bool, help="No cuDNN benchmarking  [default: false]"),
    click.option("--allow-tf32", type=bool, help="Allow TF32 in matrix products and convolutions  [default: false]"),
    click.option("--cuda-graphs", type=bool, help="Record steps: faster, but takes more memory  [default: true]"),
    click.option("--workers", type=int, help="Data loader processes  [default: one less than cores, 3 at most]"),
    click.option("--grid", metavar="COLUMNSxROWS", help="Size of the sample grids  [default: 8x8 on the CPU]"),
]


def with_options(command: Callable[..., Any], options: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    """A click command with these options added; --help lists them in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def train_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: adds `OPTIONS` to a click command."""
    return with_options(command, OPTIONS)


def metric_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: adds `METRIC_OPTIONS` to a click command."""
    return with_options(command, METRIC_OPTIONS)
