"""The door from a seed or a file to latents and labels: nothing else of the host draws the one or makes the other."""

from collections.abc import Iterable

import numpy as np
import torch

from training.files import read_npz


def seed_latents(G: torch.nn.Module, seeds: Iterable[int], device: torch.device | str) -> torch.Tensor:
    """z [len(seeds), z_dim]: the latent that each seed stands for"""
    z = np.concatenate([np.random.RandomState(seed).randn(1, G.z_dim) for seed in seeds])
    return torch.from_numpy(z).to(device)


def label_table(G: torch.nn.Module) -> torch.Tensor:
    """Labels [classes, c_dim] that a conditional G knows, in the order that --class counts them.

    One-hot ones; those of a network trained on label vectors are the examples that its snapshot keeps.
    """
    examples = getattr(G, "label_examples", None)
    return torch.eye(G.c_dim) if examples is None else examples


def class_label(G: torch.nn.Module, class_idx: int | None, count: int, device: torch.device | str) -> torch.Tensor:
    """Labels [count, c_dim] of one class. ValueError unless a conditional generator gets a class it has."""
    if G.c_dim == 0:
        if class_idx is not None:
            print("--class is ignored: this network is not conditional.")
        return torch.zeros([count, 0], device=device)
    table = label_table(G)
    class_idx = 0 if class_idx is None and len(table) == 1 else class_idx
    if class_idx is None or not 0 <= class_idx < len(table):
        kind = "conditional" if getattr(G, "label_examples", None) is None else "conditional on label vectors"
        raise ValueError(f"--class: this network is {kind}; give a class from 0 to {len(table) - 1}")
    return table[[class_idx] * count].to(device)


def load_ws(G: torch.nn.Module, path: str, device: torch.device | str) -> torch.Tensor:
    """[N, num_ws, w_dim]"""
    try:
        ws = torch.from_numpy(read_npz(path, "w")).to(device, torch.float32)
    except (OSError, ValueError) as error:
        raise ValueError(f"--projected-w: {path} is no .npz with an array w ({error})") from error
    if list(ws.shape[1:]) != [G.num_ws, G.w_dim] or not len(ws):
        raise ValueError(f"--projected-w: w is {list(ws.shape)}, this network takes [N, {G.num_ws}, {G.w_dim}]")
    return ws
