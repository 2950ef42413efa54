"""The built-in data set: avatars with known factors, labels and masks. Drawing them needs no PyTorch."""
