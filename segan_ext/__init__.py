"""SEGAN: learned linear subspaces in a StyleGAN2 generator.

    import segan_ext as segan

    G = segan.load_generator("network-snapshot-000055.pkl")
    ws = segan.ws_of_seeds(G, [0, 1], truncation_psi=0.7)
    images = segan.render(G, ws, {"L3.N1.D5": +2.5}, noise_mode="const")

Each name below is imported when it is asked for, and brings the host with it.
"""

import importlib

__version__ = "0.2.0"

_FACE = {  # name → (module, its name there)
    "load_generator": ("snapshots.load", "load_generator"),
    "SEGANGenerator": ("segan_ext.networks", "SEGANGenerator"),
    "ws_of_seeds": ("segan_ext.latents", "ws_of_seeds"),
    "render": ("segan_ext.control.render", "render"),
    "to_pictures": ("segan_ext.images", "to_pictures"),
    "traverse": ("segan_ext.control.traversal", "traversal"),
    "make_atlas": ("segan_ext.atlas.atlas", "make_atlas"),
    "find_directions": ("segan_ext.directions", "find_directions"),
}
__all__ = ["__version__", *_FACE]


def __getattr__(name: str):
    if name not in _FACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from segan_ext import host

    host.activate()
    module, attribute = _FACE[name]
    value = globals()[name] = getattr(importlib.import_module(module), attribute)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_FACE})
