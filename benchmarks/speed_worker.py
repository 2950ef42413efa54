"""A process that does timed jobs for speed.py with the host in a given folder: one JSON object a line in, one out."""

import contextlib
import json
import resource
import sys
import time
import types
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

SHARE = {"Gmain": 1, "Greg": 1 / 4, "Dmain": 1, "Dreg": 1 / 16}  # of a training step
BGC = ["xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac"]
BGC += ["brightness", "contrast", "lumaflip", "hue", "saturation"]


class Host:
    """Networks and losses of the host that is on the path: by default those of the `segan-mode0` preset.

    half: the four highest resolutions compute in half precision, where nhwc, channels-last. augment: as --aug=ada does,
    with a probability of 0.3. fused: Adam, as we have it on GPUs. graphs: CUDA graphs of phases, which only we have.
    """

    def __init__(
        self, resolution=64, mode=0, device="cpu", channel_base=32768, channel_max=128, z_dim=64, half=False,
        nhwc=False, augment=False, fused=False, graphs=False,
    ):  # fmt: skip
        import dnnlib

        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.manual_seed(0)
        make = dnnlib.util.construct_class_by_name
        shape = dict(c_dim=0, img_resolution=resolution, img_channels=3)
        width = dict(channel_base=channel_base, channel_max=channel_max)
        width |= dict(num_fp16_res=4, conv_clamp=256) if half else {}
        last = dict(fp16_channels_last=True) if nhwc else {}
        kwargs = dict(z_dim=z_dim, w_dim=z_dim, mapping_kwargs=dict(num_layers=8), synthesis_kwargs=width | last)
        if mode:
            self.G = make(class_name="segan_ext.networks.SEGANGenerator", mode=mode, **kwargs, **shape)
        else:
            self.G = make(class_name="training.networks.Generator", **kwargs, **shape)
        self.D = make(class_name="training.networks.Discriminator", block_kwargs=last, **width, **shape)
        self.G, self.D = self.G.to(device), self.D.to(device)
        networks = dict(G_mapping=self.G.mapping, G_synthesis=self.G.synthesis, D=self.D)
        if augment:
            pipe = make(class_name="training.augment.AugmentPipe", **dict.fromkeys(BGC, 1)).to(device)
            pipe.p.fill_(0.3)
            pipe.fixed_margins = graphs
            networks["augment_pipe"] = pipe
        self.loss = make(class_name="training.loss.StyleGAN2Loss", device=torch.device(device), r1_gamma=10, **networks)
        adam = dict(lr=0.002, betas=(0.0, 0.99), eps=1e-8) | (dict(fused=True) if fused else {})
        self.opts = {name: torch.optim.Adam(net.parameters(), **adam) for name, net in (("G", self.G), ("D", self.D))}
        for net in (self.G, self.D):
            net.train().requires_grad_(False)
        self.resolution, self.device, self.runner = resolution, device, None
        if graphs:
            from training.graphs import PhaseRunner, set_gradients

            self.runner = PhaseRunner(self.loss, recording=True, on_failure=sys.exit)
            self.set_gradients = set_gradients

    def phase(self, name, batch):
        """One accumulation of gradients and the optimizer's step."""
        net, opt = {"G": self.G, "D": self.D}[name[0]], self.opts[name[0]]
        on = dict(device=self.device)
        real, labels = torch.rand(batch, 3, *[self.resolution] * 2, **on) * 2 - 1, torch.zeros(batch, 0, **on)
        opt.zero_grad(set_to_none=True)
        net.requires_grad_(True)
        inputs = dict(real_img=real, real_c=labels, gen_z=torch.randn(batch, self.G.z_dim, **on), gen_c=labels)
        if self.runner is None:
            self.loss.accumulate_gradients(phase=name, sync=True, gain=1 / SHARE[name], **inputs)
        else:
            self.set_gradients(*self.runner.gradients(name, net, 1 / SHARE[name], [inputs]))
        net.requires_grad_(False)
        opt.step()

    def generate(self, batch, folded=False):
        """folded: as our own tools do it, which compute only once what depends on the weights alone."""
        if folded:
            from torch_utils import cached_weights

            self.known = getattr(self, "known", {})
        self.G.eval()
        with cached_weights.enabled(self.known) if folded else torch.no_grad():
            self.G(torch.randn(batch, self.G.z_dim, device=self.device), torch.zeros(batch, 0, device=self.device))
        self.G.train()


class Peer:
    """The package stylegan2-pytorch with the same widths, by its own training step; it asks for CUDA and needs none."""

    def __init__(self, resolution=64, mode=0):
        torch.cuda.is_available = lambda: True
        torch.Tensor.cuda = lambda self, *_: self
        torch.nn.Module.cuda = lambda self, *_: self
        import tempfile

        from stylegan2_pytorch.stylegan2_pytorch import StyleGAN2, Trainer

        torch.cuda.is_available = lambda: False  # asked for on import only
        StyleGAN2.reset_parameter_averaging = lambda self: None  # it fails for an fmap_max other than 512
        base = tempfile.mkdtemp()
        options = dict(image_size=resolution, network_capacity=128, fmap_max=128, latent_dim=64)
        self.trainer = Trainer("peer", base + "/results", base + "/models", base_dir=base, num_workers=0, **options)
        self.trainer.init_GAN()
        self.trainer.steps = 5001  # pictures and snapshots come at multiples of 1000
        self.resolution = resolution

    def phase(self, name, batch):
        """Four steps, one of them with the gradient penalty."""
        self.trainer.batch_size = batch
        image = torch.rand(batch, 3, self.resolution, self.resolution)
        self.trainer.loader = iter(lambda: image, None)
        for _ in range(4):
            self.trainer.train()


def convolution(batch, resolution=64, channels=128):
    """A 3×3 convolution by PyTorch, forward and both gradients."""
    x = torch.randn(batch, channels, resolution, resolution, requires_grad=True)
    w = torch.randn(channels, channels, 3, 3, requires_grad=True)
    torch.nn.functional.conv2d(x, w, padding=1).backward(torch.ones(batch, channels, resolution, resolution))


_tensors = {}


def operation(operation, impl, direction, layout, device="cpu", dtype="float32"):
    """bias_act, upfirdn2d or what follows a modulated convolution on 16 images of 128×64×64, forward or backward."""
    from torch_utils.ops import bias_act, upfirdn2d

    key = (operation, impl, layout, dtype)
    if key not in _tensors:
        torch.manual_seed(0)
        like = dict(device=device, dtype=getattr(torch, dtype))
        x = torch.randn(16, 128, 64, 64, **like).contiguous(memory_format=getattr(torch, layout)).requires_grad_(True)
        b, f = torch.randn(128, **like).requires_grad_(True), upfirdn2d.setup_filter([1, 3, 3, 1], device=device)
        s, noise = torch.randn(16, 128, **like).requires_grad_(True), torch.randn(16, 1, 64, 64, **like)

        def modulated():
            from torch_utils.ops import modulate  # the reference has none

            y = modulate.modulate(x, s, noise, b, act="lrelu", clamp=256) if impl == "cuda" else None
            if y is not None:
                return y
            return bias_act.bias_act(x * s[:, :, None, None] + noise, b, act="lrelu", clamp=256, impl="ref")

        call, inputs = dict(
            bias_act=(lambda: bias_act.bias_act(x, b, act="lrelu", impl=impl), [x, b]),
            upfirdn2d=(lambda: upfirdn2d.upfirdn2d(x, f, padding=[2, 1, 2, 1], impl=impl), [x]),
            modulate=(modulated, [x, s, b]),
        )[operation]
        y = call()
        _tensors[key] = call, y, torch.randn_like(y), inputs
    call, y, dy, inputs = _tensors[key]
    if direction == "forward":
        call()
    else:
        torch.autograd.grad(y, inputs, dy, retain_graph=True)


class FlopCounter(TorchDispatchMode):
    """Adds up what convolutions and matrix products need; torch's own counter cannot follow second derivatives."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def main():
    folder = sys.argv[1]
    hosts = {}
    if folder != "peer":
        sys.path[:0] = [folder, str(Path(__file__).resolve().parents[1])]
        import torch_utils.misc  # noqa: F401 (sets what the host sets when it is imported)

        if Path(folder).resolve().parent != Path(__file__).resolve().parents[1]:
            import patches

            patches.apply_all()  # what a checkout needs on current PyTorch
            if torch.cuda.is_available():
                from torch_utils.ops import bias_act, upfirdn2d

                assert bias_act._init() and upfirdn2d._init(), "its plugins cannot be built"
    print("ready", flush=True)
    for line in sys.stdin:
        job = types.SimpleNamespace(**json.loads(line))
        key = json.dumps(job.networks)
        if key not in hosts and job.networks is not None:
            hosts[key] = (Peer if folder == "peer" else Host)(**job.networks)
        run = {"convolution": convolution, "operation": operation}.get(job.job) or getattr(hosts[key], job.job)
        start = time.perf_counter()
        with FlopCounter() if job.count_flops else contextlib.nullcontext() as counter:
            for _ in range(job.repeats):
                run(**job.kwargs)
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
        seconds = (time.perf_counter() - start) / job.repeats
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        if torch.cuda.is_initialized():
            peak = torch.cuda.max_memory_reserved() / 2**20
        print(json.dumps(dict(seconds=seconds, flops=counter and counter.total, peak_mb=peak)), flush=True)


if __name__ == "__main__":
    main()
