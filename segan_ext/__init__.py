"""SEGAN: learned linear subspaces in a StyleGAN2 generator."""
