"""The training loop: fetches real images, runs the phases of G and D, keeps EMA and ADA, and saves what comes out."""

import contextlib
import copy
import functools
import json
import os
import random
import shlex
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import PIL.Image
import psutil
import torch

import dnnlib
from metrics import metric_main
from runs import processes
from runs.failures import LOST, METRIC_ERRORS, Diverged, metric_failure
from runs.run_dir import metric_sizes
from snapshots.atomic import write_atomically
from snapshots.load import load_network_pkl
from snapshots.save import save_snapshot
from torch_utils import misc, training_stats
from training import graphs, health, networks
from training.images import save_picture
from training.state import TrainingState, preserved_randomness, read, saved_states, set_random_state, state_path

_HEALTH_SAMPLES, _HEALTH_REALS = 64, 256  # images that are compared, generated and real ones
_LABEL_EXAMPLES = 64
_MOST_BAD_STEPS = 50  # in a row; then training has broken down
_LONG_WAIT = 0.2  # of the time, for images
_BETWEEN_CHECKS = 16  # steps, since a look makes the CPU wait for the GPU


def setup_snapshot_image_grid(
    training_set: torch.utils.data.Dataset, random_seed: int = 0, grid_size: Sequence[int] | None = None
) -> tuple[tuple[int, int], np.ndarray, np.ndarray]:
    """Chooses real images for `reals.png`, whose labels the generated grids then share.

    With labels, every row shows one class. grid_size: (columns, rows); None fills about 8K by 4K pixels.
    Returns (columns, rows), images [columns·rows, C, H, W], labels [columns·rows, label_dim].
    """
    rng = np.random.RandomState(random_seed)
    _, height, width = training_set.image_shape
    columns, rows = grid_size or (int(np.clip(7680 // width, 7, 32)), int(np.clip(4320 // height, 4, 32)))
    if not training_set.has_labels:
        shuffled = list(range(len(training_set)))
        rng.shuffle(shuffled)
        chosen = [shuffled[i % len(shuffled)] for i in range(columns * rows)]
    else:
        groups = {}
        for index in range(len(training_set)):
            label = tuple(training_set.get_details(index).raw_label.flat[::-1])
            groups.setdefault(label, []).append(index)
        groups = [groups[label] for label in sorted(groups)]
        for group in groups:
            rng.shuffle(group)
        chosen = []
        for row in range(rows):
            group, round_ = groups[row % len(groups)], row // len(groups)
            chosen += [group[(round_ * columns + column) % len(group)] for column in range(columns)]
    images, labels = zip(*(training_set[i] for i in chosen))
    return (columns, rows), np.stack(images), np.stack(labels)


def save_image_grid(img: np.ndarray, fname: str, drange: Sequence[float], grid_size: Sequence[int]) -> None:
    """Writes images [columns·rows, C, H, W] with values in drange = (lowest, highest) as one PNG."""
    columns, rows = grid_size
    low, high = drange
    pixels = (np.asarray(img, dtype=np.float32) - low) * (255 / (high - low))
    pixels = np.rint(pixels).clip(0, 255).astype(np.uint8)
    _, channels, height, width = pixels.shape
    pixels = pixels.reshape(rows, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
    pixels = pixels.reshape(rows * height, columns * width, channels)
    if channels not in (1, 3):
        raise ValueError(f"a picture of {channels} channels cannot be drawn")
    picture = PIL.Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
    save_picture(picture, fname)


def training_loop(
    run_dir: str = ".",
    training_set_kwargs: dict[str, Any] = {},
    data_loader_kwargs: dict[str, Any] = {},
    G_kwargs: dict[str, Any] = {},
    D_kwargs: dict[str, Any] = {},
    G_opt_kwargs: dict[str, Any] = {},
    D_opt_kwargs: dict[str, Any] = {},
    augment_kwargs: dict[str, Any] | None = None,
    loss_kwargs: dict[str, Any] = {},
    metrics: list[str] = [],
    random_seed: int = 0,
    num_gpus: int = 1,
    rank: int = 0,
    batch_size: int = 4,
    batch_gpu: int = 4,
    ema_kimg: float = 10,
    ema_rampup: float | None = None,
    G_reg_interval: int | None = 4,
    D_reg_interval: int | None = 16,
    augment_p: float = 0,
    ada_target: float | None = None,
    ada_interval: int = 4,
    ada_kimg: float = 500,
    total_kimg: float = 25000,
    kimg_per_tick: float = 4,
    image_snapshot_ticks: int | None = 50,
    network_snapshot_ticks: int | None = 50,
    resume_pkl: str | None = None,
    cudnn_benchmark: bool = True,
    allow_tf32: bool = False,
    abort_fn: Callable[[], bool] | None = None,
    progress_fn: Callable[[float, float], None] | None = None,
    device: torch.device | str | None = None,
    resume_state: str | None = None,
    grid_size: Sequence[int] | None = None,
    metric_kwargs: dict[str, Any] = {},
    trust_pickle: bool = False,
    training_set: torch.utils.data.Dataset | None = None,
    resume_networks: dict[str, Any] | None = None,
    keep: int = 2,
    save_minutes: float = 10,
    bf16: bool = False,
    cuda_graphs: bool = True,
) -> None:
    """Trains G and D; everything that comes out lies in `run_dir` (host_api: run directory).

    *_kwargs: `class_name` and constructor arguments; the networks also get the data set's shape. batch_size: images a
    step over all processes, of which each handles batch_gpu at a time. ema_rampup: EMA half-life is at most that share
    of the run so far. *_reg_interval: steps between regularisation; None: every step. augment_p: probability at first;
    ada_target: adapts it to hold that share of reals above zero (ada_kimg: from 0 to 1 at the fastest). *_ticks: None
    saves at the end only. abort_fn(): True saves and stops. progress_fn(kimg, total): called after every step. Ours:
    device (None: cuda if there is one), resume_state: continued exactly, metric_kwargs (of `MetricOptions`), keep:
    number of states, save_minutes between them, trust_pickle: run code in resume_pkl, bf16, cuda_graphs (see `graphs`).
    """
    options = dnnlib.EasyDict(locals())
    torch.backends.cudnn.benchmark = cudnn_benchmark
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allow_tf32
    networks.set_half_precision(torch.bfloat16 if bf16 else torch.float16)
    Trainer(options).run()


class Phase:
    """One kind of step: `name` of the loss's phase, the network it trains, and how often it runs."""

    def __init__(self, name: str, module: torch.nn.Module, opt: torch.optim.Optimizer, interval: int) -> None:
        self.name, self.module, self.opt, self.interval = name, module, opt, interval
        self.times = []  # (start, end) of every step in this tick
        # Steps in a row, and in this tick, whose gradients were not finite, and the last of them: on the device, since
        # reading them would hold up the queue.
        self.bad_in_row = self.bad_steps = self.last_bad = torch.zeros([])

    def count_bad(self, is_bad: torch.Tensor, step: int) -> None:
        """Takes note of whether the gradients of a step were not finite."""
        self.bad_in_row = torch.where(is_bad, self.bad_in_row + 1, 0)
        self.bad_steps = self.bad_steps + is_bad
        self.last_bad = torch.where(is_bad, step, self.last_bad)

    def mean_seconds(self) -> float:
        """Mean duration of a step; on CUDA this waits for the steps that are queued."""
        if isinstance(self.times[0][0], float):
            return sum(end - start for start, end in self.times) / len(self.times)
        self.times[-1][1].synchronize()
        return sum(start.elapsed_time(end) for start, end in self.times) / len(self.times) / 1000


def _ignore_signals(closing, _worker):
    """In loader processes: stopping is for the main process, which needs their images for its last step, until then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0) if closing.is_set() else None)


class Trainer:
    """A training run. `run()` is the loop; the methods below it are its steps in order of use."""

    def __init__(self, options: dnnlib.EasyDict) -> None:
        self.o = options
        self.device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if self.device.type == "cuda":
            local = int(os.environ.get("LOCAL_RANK", options.rank))
            self.device = torch.device("cuda", local if options.num_gpus > 1 else self.device.index or 0)
            torch.cuda.set_device(self.device)
        seed = options.random_seed * options.num_gpus + options.rank
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        self.started = self.saved = time.monotonic()
        training_stats.init_multiprocessing(options.rank, torch.device("cpu") if options.num_gpus > 1 else None)
        self._load_training_set()
        self._build_networks()
        self._build_phases()
        self._build_state()
        self._open_logs()

    def run(self) -> None:
        """Trains to `total_kimg`, or until `abort_fn` asks to stop; what comes out is then saved."""
        self.closing = torch.multiprocessing.Event()
        try:
            self._run()
        finally:
            self.closing.set()

    def _run(self):
        self._prepare_samples()
        if self._metrics_before is not None:  # the snapshot's own may have been cut off
            self._evaluate_metrics(self._snapshot_path(), since=self._metrics_before)
        self._start_loader()
        tick = self._start_tick()
        while not self._finished():
            if processes.any_of_all(self._asked_to_stop()):
                self._stop()
                break
            self._train_batch()
            self._update_ema()
            self.state.cur_nimg += self.o.batch_size
            self.state.batch_idx += 1
            self._adapt_augmentation()
            self._check_numbers()
            self._report_progress()
            if self._tick_is_over():
                self._end_tick(tick)
                tick = self._start_tick()
            if processes.any_of_all(self._state_is_due()):
                self._check_weights()
                self._save_state()
        self._close()

    def _asked_to_stop(self):
        return self.o.abort_fn is not None and self.o.abort_fn()

    def _stop(self):
        """Saves what there is; its metrics, which may take hours, are made up for when the run goes on."""
        if self._snapshot_nimg != self.state.cur_nimg:
            self._save_snapshot()
        way_on = f"--resume={shlex.quote(self.o.run_dir)} continues it"
        self._say(f"Stopped at {self.state.cur_nimg / 1000:.1f} kimg; {way_on}.")

    def _state_is_due(self):
        """Whether so many minutes have gone by without a state, and there is something new to save."""
        late = self.o.save_minutes > 0 and time.monotonic() - self.saved >= self.o.save_minutes * 60
        return late and self._saved_nimg != self.state.cur_nimg

    # Construction

    def _load_training_set(self):
        self._say("Loading training set...")
        data = self.o.training_set
        if data is None:
            data = dnnlib.util.construct_class_by_name(**self.o.training_set_kwargs)
        self.training_set = data
        found = processes.gathered((len(data), data.image_shape, data.label_shape))
        for rank, other in enumerate(found):
            if other != found[0]:
                raise OSError(f"process {rank} finds other images than the first: {other}, not {found[0]}")
        self._say(f"{len(data)} images, {data.image_shape}, labels {data.label_shape}")

    def _build_networks(self):
        data = self.training_set
        shape = dict(c_dim=data.label_dim, img_resolution=data.resolution, img_channels=data.num_channels)
        build = lambda kwargs: dnnlib.util.construct_class_by_name(**kwargs, **shape)
        self.G = build(self.o.G_kwargs).train().requires_grad_(False).to(self.device)
        self.D = build(self.o.D_kwargs).train().requires_grad_(False).to(self.device)
        self.G_ema = copy.deepcopy(self.G).eval()
        if self.o.resume_pkl is not None and self.o.resume_state is None and self.o.rank == 0:
            self._say(f"Starting from {self.o.resume_pkl}")
            source = self.o.resume_networks
            if source is None:
                with dnnlib.util.open_url(self.o.resume_pkl) as file:
                    source = load_network_pkl(file, trust=self.o.trust_pickle)
            for name in ("G", "D", "G_ema"):
                misc.copy_params_and_buffers(source[name], getattr(self, name), require_all=False)
        self.augment_pipe = None
        if self.o.augment_kwargs is not None and (self.o.augment_p > 0 or self.o.ada_target is not None):
            pipe = dnnlib.util.construct_class_by_name(**self.o.augment_kwargs)
            self.augment_pipe = pipe.train().requires_grad_(False).to(self.device)
            self.augment_pipe.p.fill_(self.o.augment_p)
        for module in filter(None, (self.G, self.D, self.G_ema, self.augment_pipe)):
            processes.take_from_first(misc.params_and_buffers(module))
        if self.o.rank == 0 and self.o.resume_state is None:
            self._print_summaries()

    def _print_summaries(self):
        G, D = copy.deepcopy(self.G).eval(), copy.deepcopy(self.D).eval()
        z = torch.zeros([self.o.batch_gpu, G.z_dim], device=self.device)
        c = torch.zeros([self.o.batch_gpu, G.c_dim], device=self.device)
        with torch.no_grad(), preserved_randomness():
            img = misc.print_module_summary(G, [z, c])
            misc.print_module_summary(D, [img, c])

    def _build_phases(self):
        modules = dict(G_mapping=self.G.mapping, G_synthesis=self.G.synthesis, D=self.D, augment_pipe=self.augment_pipe)
        self.loss = dnnlib.util.construct_class_by_name(device=self.device, **modules, **self.o.loss_kwargs)
        self.loss.open_data(self.training_set, self.o.run_dir)
        recording = self.device.type == "cuda" and self.o.cuda_graphs
        self.runner = graphs.PhaseRunner(self.loss, recording, self._without_graphs)
        if self.augment_pipe is not None:
            self.augment_pipe.fixed_margins = self.runner.recording
        self.phases, self.optimizers = [], {}
        for name, module, opt_kwargs, interval in (
            ("G", self.G, self.o.G_opt_kwargs, self.o.G_reg_interval),
            ("D", self.D, self.o.D_opt_kwargs, self.o.D_reg_interval),
        ):
            fused = dict(fused=True) if self.device.type == "cuda" else {}  # one call for all parameters
            opt = dnnlib.util.construct_class_by_name(module.parameters(), **_lazy(opt_kwargs, interval), **fused)
            self.optimizers[name] = opt
            if interval is None:
                self.phases.append(Phase(f"{name}both", module, opt, 1))
            else:
                self.phases += [Phase(f"{name}main", module, opt, 1), Phase(f"{name}reg", module, opt, interval)]

    def _without_graphs(self, reason):
        if self.augment_pipe is not None:
            self.augment_pipe.fixed_margins = False  # which takes less memory
        self._say(reason)

    def _build_state(self):
        self.stats = training_stats.Collector(regex=".*")
        self.signs = training_stats.Collector(regex="Loss/signs/real")
        modules = dict(G=self.G, D=self.D, G_ema=self.G_ema)
        if self.augment_pipe is not None:
            modules["augment_pipe"] = self.augment_pipe
        collectors = dict(stats=self.stats, signs=self.signs)
        self.state = TrainingState(modules, self.optimizers, self.loss, collectors)
        self._restored_randomness = self._restored_order = self._metrics_before = None
        self._saved_nimg = self._snapshot_nimg = None  # images after which there are a state and a snapshot
        if self.o.resume_state is not None:
            self._restore()

    def _restore(self):
        """Takes up a saved state, which only the first process can be sure to reach."""
        saved = processes.told(read(self.o.resume_state) if self.o.rank == 0 else None)
        randomness, self._metrics_before = self.state.load(saved), saved.get("metrics_before")
        if "order" in saved:  # not in older ones
            self._restored_order = saved["order"].numpy()
        self._saved_nimg = self.state.cur_nimg
        self._snapshot_nimg = None if self._metrics_before is None else self.state.cur_nimg
        self._say(f"Continuing at {self.state.cur_nimg / 1000:.1f} kimg from {self.o.resume_state}")
        other = f"by {len(randomness)} process{'es' * (len(randomness) > 1)} and goes on with {self.o.num_gpus}"
        if len(randomness) == self.o.num_gpus:
            self._restored_randomness = randomness[self.o.rank]
            if self.device.type != "cuda" or self._restored_randomness["cuda"]:
                return
            other = "on the CPU and goes on on a GPU"
        self._say(
            f"It was saved {other}: the same images follow, with other random numbers than those would have drawn."
        )
        rng = np.random.RandomState([self.o.random_seed, self.o.num_gpus, self.o.rank, self.state.batch_idx])
        seed = int(rng.randint(2**31))
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)

    # Logs

    def _open_logs(self):
        self.stats_file = self.tensorboard = None
        if self.o.rank != 0:
            return
        path = os.path.join(self.o.run_dir, "stats.jsonl")
        if self.o.resume_state is not None and os.path.exists(path):
            os.truncate(path, min(self.state.stats_bytes, os.path.getsize(path)))
        self.stats_file = open(path, "ab" if self.o.resume_state is not None else "wb")
        try:
            from torch.utils.tensorboard import SummaryWriter

            purge = self.state.cur_nimg // 1000 if self.o.resume_state is not None else None
            self.tensorboard = SummaryWriter(self.o.run_dir, purge_step=purge)
        except ImportError:
            self._say("TensorBoard is not installed; statistics go to stats.jsonl alone.")

    def _say(self, text):
        if self.o.rank == 0:
            print(text)

    def _close(self):
        if self.stats_file is not None:
            self.stats_file.close()
        if self.tensorboard is not None:
            self.tensorboard.close()
        if self._finished():
            self._say("Done.")

    # Samples

    def _prepare_samples(self):
        """Chooses the latents and labels that every grid shows; writes reals.png and fakes_init.png."""
        data, rng = self.training_set, np.random.RandomState(self.o.random_seed)
        with preserved_randomness():
            self.grid_size, images, labels = setup_snapshot_image_grid(data, self.o.random_seed, self.o.grid_size)
            z = rng.randn(len(labels), self.G.z_dim).astype(np.float32)
            self.grid_z = torch.from_numpy(z).to(self.device).split(self.o.batch_gpu)
            self.grid_c = torch.from_numpy(labels).to(self.device).split(self.o.batch_gpu)
            samples = min(len(labels), _HEALTH_SAMPLES)
            chosen = rng.choice(len(data), min(len(data), samples + _HEALTH_REALS), replace=False)
            reals = np.stack([data[i][0] for i in chosen])
            others, self.reals = np.split(reals / 127.5 - 1, [samples])  # others: as many as there are samples
            self.real_diversity, self.real_recall = health.diversity(others), health.recall(self.reals, others)
            equal = not self.real_diversity > 0  # those that were drawn; NaN where there is but one
            self.one_picture = equal and all(np.array_equal(data[i][0], reals[0]) for i in range(len(data)))
            if self.o.rank == 0 and self.o.resume_state is None:
                save_image_grid(images, self._in_run_dir("reals.png"), drange=[0, 255], grid_size=self.grid_size)
                self._save_fakes(self._fakes(), "fakes_init.png")

    def _fakes(self, limit=None):
        """Images of the EMA generator for the fixed latents, [N, C, H, W]."""
        count = len(self.grid_z) if limit is None else -(-limit // self.o.batch_gpu)
        with torch.no_grad():
            batches = [
                self.G_ema(z=z, c=c, noise_mode="const").cpu() for z, c in zip(self.grid_z[:count], self.grid_c[:count])
            ]
        return torch.cat(batches)[:limit]

    def _save_fakes(self, images, name):
        save_image_grid(images, self._in_run_dir(name), drange=[-1, 1], grid_size=self.grid_size)

    def _in_run_dir(self, name):
        return os.path.join(self.o.run_dir, name)

    # One step

    def _start_loader(self):
        o = self.o
        self.sampler = misc.InfiniteSampler(
            self.training_set,
            rank=o.rank,
            num_replicas=o.num_gpus,
            seed=o.random_seed,
            start=self.state.cur_nimg,
            order=self._restored_order,
        )
        local_batch = o.batch_size // o.num_gpus
        loader = torch.utils.data.DataLoader(
            self.training_set,
            sampler=self.sampler,
            batch_size=local_batch,
            worker_init_fn=functools.partial(_ignore_signals, self.closing),
            **_loader_kwargs(o.data_loader_kwargs),
        )
        self.batches = iter(loader)
        if self._restored_randomness is not None:  # after everything that draws numbers while a run starts
            set_random_state(self._restored_randomness)

    def _fetch_batch(self):
        """Real images and labels, and latents and labels for every phase, in parts of batch_gpu."""
        o = self.o
        began = time.monotonic()
        img, c = next(self.batches)
        self.waited += time.monotonic() - began
        img = img.to(self.device, non_blocking=True).to(torch.float32) / 127.5 - 1
        real = list(zip(img.split(o.batch_gpu), c.to(self.device, non_blocking=True).split(o.batch_gpu)))
        per_phase = o.batch_size // o.num_gpus
        z = torch.randn([len(self.phases) * per_phase, self.G.z_dim], device=self.device)
        data = self.training_set
        labels = [data.get_label(np.random.randint(len(data))) for _ in range(len(self.phases) * per_phase)]
        labels = torch.from_numpy(np.stack(labels)).to(self.device, non_blocking=True)
        parts = zip(z.split(per_phase), labels.split(per_phase))
        return real, [list(zip(z.split(o.batch_gpu), c.split(o.batch_gpu))) for z, c in parts]

    def _train_batch(self):
        real, generated = self._fetch_batch()
        for phase, gen in zip(self.phases, generated):
            if self.state.batch_idx % phase.interval == 0:
                start = self._moment()
                self._run_phase(phase, real, gen)
                phase.times.append((start, self._moment()))

    def _run_phase(self, phase, real, gen):
        """Accumulates the gradients of all parts of the batch, and takes one optimizer step."""
        phase.opt.zero_grad(set_to_none=True)
        phase.module.requires_grad_(True)
        parts = [
            self.loss.inputs(phase.name, dict(real_img=real_img, real_c=real_c, gen_z=gen_z, gen_c=gen_c))
            for (real_img, real_c), (gen_z, gen_c) in zip(real, gen)
        ]
        trained, flat = self.runner.gradients(phase.name, phase.module, phase.interval, parts)
        phase.module.requires_grad_(False)
        if trained:
            processes.average([flat])
            is_bad = ~flat.sum().isfinite()
            training_stats.report("Health/nonfinite_steps", is_bad.float())
            phase.count_bad(is_bad, self.state.batch_idx)
            torch.nan_to_num(flat, nan=0, posinf=1e5, neginf=-1e5, out=flat)
            graphs.set_gradients(trained, flat)
            phase.opt.step()

    def _check_numbers(self):
        """Diverged if a network has had no finite gradients for long."""
        if self.state.batch_idx % _BETWEEN_CHECKS:
            return
        for phase in self.phases:
            if phase.bad_in_row >= _MOST_BAD_STEPS:
                raise Diverged(
                    f"the gradients of {phase.name} were not finite in {int(phase.bad_in_row)} steps in a row, up to "
                    f"step {int(phase.last_bad)}: lower --lrate or raise --gamma, or use --fp32=1"
                )

    @torch.no_grad()
    def _update_ema(self):
        half_life = self.o.ema_kimg * 1000
        if self.o.ema_rampup is not None:
            half_life = min(half_life, self.state.cur_nimg * self.o.ema_rampup)
        keep = 0.5 ** (self.o.batch_size / max(half_life, 1e-8))
        processes.average([buffer for name, buffer in self.G.named_buffers() if name.endswith("w_avg")])
        torch._foreach_lerp_([*self.G_ema.parameters()], [*self.G.parameters()], 1 - keep)
        torch._foreach_copy_([*self.G_ema.buffers()], [*self.G.buffers()])

    def _adapt_augmentation(self):
        """ADA: raises p while D is too sure of the reals, lowers it otherwise; p stays in [0, 1]."""
        if self.augment_pipe is None or self.o.ada_target is None or self.state.batch_idx % self.o.ada_interval != 0:
            return
        self.signs.update()
        if np.isnan(self.signs["Loss/signs/real"]):  # D has not yet given a finite score
            return
        direction = np.sign(self.signs["Loss/signs/real"] - self.o.ada_target)
        step = direction * self.o.batch_size * self.o.ada_interval / (self.o.ada_kimg * 1000)
        self.augment_pipe.p.copy_((self.augment_pipe.p + step).clamp(0, 1))

    def _report_progress(self):
        if self.o.progress_fn is not None:
            self.o.progress_fn(self.state.cur_nimg / 1000, self.o.total_kimg)

    def _finished(self):
        return self.state.cur_nimg >= self.o.total_kimg * 1000

    def _moment(self):
        """A point in time: seconds, or on CUDA an event, so that nothing has to wait for the queue."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    # Ticks: the first one ends after a single step, to show at once that everything works

    def _tick_is_over(self):
        s = self.state
        full = s.cur_nimg >= s.tick_start_nimg + self.o.kimg_per_tick * 1000
        return full or s.cur_tick == 0 or self._finished()

    def _start_tick(self):
        self.waited = 0.0
        for phase in self.phases:
            phase.times, phase.bad_steps = [], torch.zeros([])
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        return dnnlib.EasyDict(start=time.monotonic(), nimg=self.state.cur_nimg)

    def _end_tick(self, tick):
        """Status line, pictures, statistics, snapshot: in this order, so that a saved state holds all but itself."""
        s, o = self.state, self.o
        fields = self._report_tick(tick, self._count_seconds())
        finished = self._finished()
        due = lambda ticks: finished or (ticks is not None and s.cur_tick % ticks == 0)
        grid_due = o.rank == 0 and due(o.image_snapshot_ticks)
        if o.rank == 0:
            fakes = self._fakes(limit=None if grid_due else _HEALTH_SAMPLES)
        if self.real_diversity > 0:
            relative = health.diversity(fakes[:_HEALTH_SAMPLES]) / self.real_diversity if o.rank == 0 else 0
            training_stats.report0("Health/diversity", relative)
        if self.real_recall > 0:
            relative = health.recall(self.reals, fakes[:_HEALTH_SAMPLES]) / self.real_recall if o.rank == 0 else 0
            training_stats.report0("Health/recall", relative)
        self.stats.update()
        problems = self._assess_health()
        self._say("  ".join(fields) + ("" if problems else "  health ok"))
        for problem in problems:
            self._say(f"  health: {problem}")
        if grid_due:
            self._save_fakes(fakes, f"fakes{s.cur_nimg // 1000:06d}.png")
        self._write_stats()
        snapshot_due = due(o.network_snapshot_ticks)
        s.cur_tick += 1
        s.tick_start_nimg = s.cur_nimg
        if snapshot_due:
            self._save_snapshot()
            self._evaluate_metrics(self._snapshot_path())
        elif o.save_minutes == 0:
            self._check_weights()
            self._save_state()

    def _count_seconds(self):
        """Adds the time since the last call to the run's, and returns what time it is."""
        now = time.monotonic()
        self.state.seconds += now - self.started
        self.started = now
        return now

    def _report_tick(self, tick, now):
        """Reports a tick's progress, times and memory; returns the fields of its status line."""
        s, report = self.state, training_stats.report0
        kimg = max(s.cur_nimg - tick.nimg, 1) / 1000
        seconds = now - tick.start
        p = float(self.augment_pipe.p) if self.augment_pipe is not None else 0.0
        cpu_gb = psutil.Process(os.getpid()).memory_info().rss / 2**30
        gpu_gb = torch.cuda.max_memory_reserved(self.device) / 2**30 if self.device.type == "cuda" else 0.0
        report("Timing/total_hours", s.seconds / 3600)
        report("Timing/total_days", s.seconds / 86400)
        waited = report("Timing/waiting_for_data", self.waited / seconds)
        if waited > _LONG_WAIT and s.cur_tick > 0:
            self._say(f"Steps wait for images {waited:.0%} of the time: more --workers help, or a faster disk.")
        for phase in self.phases:
            if phase.times:
                report(f"Timing/{phase.name}", phase.mean_seconds())
        return [
            f"tick {report('Progress/tick', s.cur_tick):<5d}",
            f"kimg {report('Progress/kimg', s.cur_nimg / 1e3):<8.1f}",
            f"time {dnnlib.util.format_time(report('Timing/total_sec', s.seconds)):<12s}",
            f"sec/tick {report('Timing/sec_per_tick', seconds):<7.1f}",
            f"sec/kimg {report('Timing/sec_per_kimg', seconds / kimg):<7.2f}",
            f"cpumem {report('Resources/cpu_mem_gb', cpu_gb):<6.2f}",
            f"gpumem {report('Resources/peak_gpu_mem_gb', gpu_gb):<6.2f}",
            f"augment {report('Progress/augment', p):.3f}",
        ]

    def _assess_health(self):
        """Writes health.txt and returns what is wrong, in sentences."""
        stats = self.stats
        problems = health.assess(
            signs_real=stats["Loss/signs/real"],
            signs_fake=stats["Loss/signs/fake"],
            augment_p=stats["Progress/augment"],
            adaptive=self.o.ada_target is not None,
            nonfinite=stats["Health/nonfinite_steps"],
            relative_diversity=stats["Health/diversity"],
            bad_steps={p.name: (int(p.bad_steps), int(p.last_bad)) for p in self.phases if p.bad_steps},
            left_out={name: count for name in stats.names() if (count := stats.nonfinite(name))},
            one_picture=self.one_picture,
            relative_recall=stats["Health/recall"],
            kimg=self.state.cur_nimg / 1000,
        )
        if self.o.rank == 0:
            kimg, text = self.state.cur_nimg / 1000, "\n".join(problems) or "All is well."
            write = lambda file: file.write(f"At {kimg:.1f} kimg:\n{text}\n".encode())
            write_atomically(self._in_run_dir("health.txt"), write)
        return problems

    def _write_stats(self):
        if self.stats_file is None:
            return
        values = dict(self.stats.as_dict(), timestamp=time.time())
        self.stats_file.write((json.dumps(values) + "\n").encode())
        self.stats_file.flush()
        if self.tensorboard is not None:
            step = int(self.state.cur_nimg / 1e3)
            for name in self.stats.names():
                self.tensorboard.add_scalar(name, self.stats[name], global_step=step, walltime=values["timestamp"])
            self.tensorboard.flush()

    # Snapshots

    def _save_snapshot(self):
        """The networks as a pickle, then the state beside it; each file is whole or absent."""
        networks = dict(
            G=self.G,
            D=self.D,
            G_ema=self.G_ema,
            augment_pipe=self.augment_pipe,
            training_set_kwargs=dict(self.o.training_set_kwargs),
            **self._label_examples(),
        )
        self._check_weights()
        path = self._snapshot_path()
        if self.o.rank == 0:
            for name in ("G", "D", "G_ema", "augment_pipe"):
                if networks[name] is not None:
                    networks[name] = misc.contiguous(copy.deepcopy(networks[name]).eval().requires_grad_(False).cpu())
            if self.augment_pipe is not None:
                networks["augment_pipe"].fixed_margins = False
            save_snapshot(path, networks)
        self._save_state(metrics_before=metric_sizes(self.o.run_dir) if self.o.rank == 0 else None)
        self._snapshot_nimg = self.state.cur_nimg

    def _label_examples(self):
        """Some of the data's label vectors, which a network alone does not tell; nothing for classes."""
        data = self.training_set
        if not data.has_labels or data.has_onehot_labels:
            return {}
        chosen = np.unique(np.linspace(0, len(data) - 1, _LABEL_EXAMPLES).astype(int))
        return dict(label_examples=torch.from_numpy(np.stack([data.get_label(i) for i in chosen])))

    def _snapshot_path(self):
        return self._in_run_dir(f"network-snapshot-{self.state.cur_nimg // 1000:06d}.pkl")

    def _check_weights(self):
        """Diverged rather than a snapshot whose weights are not finite; AssertionError where processes disagree."""
        for name, module in (("G", self.G), ("D", self.D)):
            if self.o.num_gpus > 1:
                misc.check_ddp_consistency(module)
            if not all(bool(p.isfinite().all()) for p in module.parameters()):
                raise Diverged(f"weights of {name} are not finite: lower --lrate or raise --gamma, or use --fp32=1")

    def _save_state(self, metrics_before=None):
        """Writes the state that a run continues from, and removes those that are older than `keep` others.

        metrics_before: sizes of the files of metrics, where those of a snapshot are to follow.
        """
        self._count_seconds()
        log = self._in_run_dir("log.txt")
        self.state.log_bytes = os.path.getsize(log) if os.path.exists(log) else 0
        self.state.stats_bytes = self.stats_file.tell() if self.stats_file is not None else 0
        state = self.state.capture() | dict(metrics_before=metrics_before)
        if self.o.rank == 0:
            state["order"] = torch.from_numpy(self.sampler.order_at(self.state.cur_nimg))
        self.saved, self._saved_nimg = time.monotonic(), self.state.cur_nimg
        if self.o.rank == 0:
            path = state_path(self.o.run_dir, self.state.cur_nimg // 1000)
            write_atomically(path, lambda file: torch.save(state, file))
            for old in saved_states(self.o.run_dir)[: -self.o.keep]:
                os.remove(old)

    def _evaluate_metrics(self, snapshot_pkl, since=None):
        """Computes, says and keeps the metrics of a snapshot, but for those that the files hold from `since` on."""
        for metric in self.o.metrics:
            known = None if since is None else self._known_results(metric, snapshot_pkl, since)
            if known is not None:
                for name, value in known.items():
                    training_stats.report0(f"Metrics/{name}", value)
                continue
            result, reason = self._measure(metric)
            reasons = [reason for reason in processes.gathered(reason) if reason is not None]
            if reasons:  # what cannot be measured should not end a run
                self._say(f"{metric} could not be computed: {reasons[0]}")
                continue
            if result is None:
                way_on = "calc_metrics.py computes it" if self._finished() else "--resume makes up for it"
                self._say(f"{metric} of {os.path.basename(snapshot_pkl)} is left out; {way_on}.")
                return
            if self.o.rank == 0:
                metric_main.report_metric(result, run_dir=self.o.run_dir, snapshot_pkl=snapshot_pkl)
            for name, value in result.results.items():
                training_stats.report0(f"Metrics/{name}", value)

    def _measure(self, metric):
        """(result, None); (None, reason) in a process that failed; (None, None) in the others, or if asked to stop."""
        try:
            # Otherwise a run would depend on what was measured.
            with preserved_randomness(), processes.interruptible(self._asked_to_stop):
                processes.go_on()
                result = metric_main.calc_metric(
                    metric=metric,
                    G=self.G_ema,
                    dataset_kwargs=self.o.training_set_kwargs,
                    num_gpus=self.o.num_gpus,
                    rank=self.o.rank,
                    device=self.device,
                    seed=0,  # the same latents for every snapshot
                    **self.o.metric_kwargs,
                )
                processes.go_on()
            return result, None
        except processes.Interrupted:
            return None, None
        except METRIC_ERRORS as error:
            reason = metric_failure(error)
            if reason in (None, LOST):
                raise
            with contextlib.suppress(processes.Interrupted):
                processes.go_on(failed=True)
            return None, reason

    def _known_results(self, metric, snapshot_pkl, since):
        found, how = None, {k: v for k, v in self.o.metric_kwargs.items() if k in ("detectors", "num_gen")}
        if self.o.rank == 0:
            found = metric_main.known_results(self.o.run_dir, snapshot_pkl, metric, since, **how)
        return processes.told(found)


def _lazy(opt_kwargs, interval):
    """Optimizer options for two kinds of steps that share one optimizer (StyleGAN2, appendix B).

    Together main and regularisation steps are interval + 1 in interval; lr and betas make up for that.
    """
    if interval is None:
        return opt_kwargs
    ratio = interval / (interval + 1)
    lr, betas = opt_kwargs["lr"] * ratio, [float(beta) ** ratio for beta in opt_kwargs["betas"]]
    return dict(opt_kwargs, lr=lr, betas=betas)


def _loader_kwargs(kwargs):
    """`prefetch_factor` means something only with workers, `pin_memory` only with an accelerator."""
    kwargs = dict(kwargs)
    if not kwargs.get("num_workers"):
        kwargs.pop("prefetch_factor", None)
    kwargs["pin_memory"] = bool(kwargs.get("pin_memory")) and torch.cuda.is_available()
    return kwargs
