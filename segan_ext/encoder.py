"""A discriminator that also says which coordinates it sees: its trunk carries a second head, the encoder Q.

This file travels inside pickles as source: it imports nothing but torch and the host's public names.
"""

import torch

from torch_utils import persistence
from training import networks


@persistence.persistent_class
class EncoderEpilogue(networks.DiscriminatorEpilogue):
    """The host's last block and, beside it, two dense layers to `codes` numbers, which see one image at a time."""

    def __init__(self, *args: object, codes: int, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.codes_fc = networks.FullyConnectedLayer(
            self.in_channels * self.resolution**2, self.in_channels, activation="lrelu"
        )
        self.codes_out = networks.FullyConnectedLayer(self.in_channels, codes)

    def forward(
        self, x: torch.Tensor, img: "torch.Tensor | None", cmap: "torch.Tensor | None", force_fp32: bool = False
    ) -> torch.Tensor:
        """As the host's → [N, 1 + codes], the logit first"""
        logits = super().forward(x, img, cmap, force_fp32)
        return torch.cat([logits, self.codes_out(self.codes_fc(x.to(torch.float32).flatten(1)))], dim=1)


@persistence.persistent_class
class EncoderDiscriminator(networks.Discriminator):
    """The host's discriminator with a head for `codes` numbers, InfoGAN's Q (Chen et al. 2016)."""

    def __init__(self, *args: object, codes: int, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        plain = self.b4
        made_with = {**plain.init_kwargs, "codes": codes}
        self.b4 = EncoderEpilogue(*plain.init_args, **made_with)

    def forward(
        self, img: torch.Tensor, c: "torch.Tensor | None", codes: bool = False, **block_kwargs: object
    ) -> "torch.Tensor | tuple[torch.Tensor, torch.Tensor]":
        """img [N, C, H, W], c [N, c_dim] → logits [N, 1], and with `codes` those beside them [N, codes]"""
        both = super().forward(img, c, **block_kwargs)
        return (both[:, :1], both[:, 1:]) if codes else both[:, :1]
