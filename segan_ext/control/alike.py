"""Which dimensions do the same: those whose changes of the image point the same way."""

import torch

from segan_ext.images import averaged_down

ALIKE = 0.9  # |cosine| of two changes from which on one counts as a copy of the other

_UNLIKE = 0.5  # … below which two do different things


def signature(change: torch.Tensor) -> torch.Tensor:
    """Changes of images [dims, S, C, H, W] → [dims, F]: small enough to keep for every dimension"""
    return averaged_down(change.flatten(0, 1), 8).reshape(len(change), -1).cpu()


def nearest_before(signatures: torch.Tensor) -> list[tuple[int, float] | None]:
    """For each of signatures [M, F] in order: (the one before it that is most like it, the cosine of the two).

    Negative: the other way round. None for the first, and where nothing changes.
    """
    lengths = signatures.norm(dim=1)
    signatures = signatures / lengths.clamp(min=1e-12)[:, None]
    found = [None]
    for i in range(1, len(signatures)):
        cosines = signatures[:i] @ signatures[i]
        nearest = int(cosines.abs().argmax())
        found.append((nearest, float(cosines[nearest])) if lengths[i] > 1e-6 else None)
    return found


def most_different(signatures: torch.Tensor, strengths: torch.Tensor, count: int) -> list[tuple[int, int]]:
    """[(index, copies), …] of `count` of signatures [M, F] at most: strong ones that are not like each other.

    The one of most strength [M] first; each next one is the strongest whose |cosine| with all before it is below a
    half. copies: how many of the others are copies of it, above 0.9.
    """
    lengths = signatures.norm(dim=1)
    unit = signatures / lengths.clamp(min=1e-12)[:, None]
    chosen = []
    for i in strengths.argsort(descending=True).tolist():
        unlike = not chosen or (unit[chosen] @ unit[i]).abs().max() < _UNLIKE
        if lengths[i] > 1e-6 and unlike and len(chosen) < count:
            chosen.append(i)
    alike = (unit[chosen] @ unit.t()).abs() > ALIKE
    return [(i, int(row.sum()) - 1) for i, row in zip(chosen, alike)]


def originals(signatures: torch.Tensor) -> list[int]:
    """For each of signatures [M, F] in order: the first that it is a copy of, which may be itself.

    Only what is no copy has copies, so that a chain of small differences does not make one of all.
    """
    signatures = signatures / signatures.norm(dim=1).clamp(min=1e-12)[:, None]
    found, firsts = [], []
    for i, each in enumerate(signatures):
        cosines = (signatures[firsts] @ each).abs() if firsts else torch.zeros(0)
        if len(cosines) and cosines.max() > ALIKE:
            found.append(firsts[int(cosines.argmax())])
        else:
            found.append(i)
            firsts.append(i)
    return found
