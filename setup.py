"""Finds the packages; pyproject.toml says all else."""

from setuptools import find_packages, setup

# The host is no package of its own: `segan_ext.host` puts its folder on the path, like a checkout of the reference.
setup(
    packages=[
        *find_packages(include=["segan_ext", "segan_ext.*"]),
        "segan_ext.patches",
        "stylegan2_ada",
        *(f"stylegan2_ada.{name}" for name in find_packages("stylegan2_ada")),
    ],
    package_dir={"segan_ext.patches": "patches"},
)
