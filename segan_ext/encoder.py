"""A discriminator that also says which coordinates it sees: its trunk carries a second head, the encoder Q.

This file travels inside pickles as source: it imports nothing but torch and the host's public names.
"""

import torch

from torch_utils import persistence
from training import networks


@persistence.persistent_class
class EncoderEpilogue(networks.DiscriminatorEpilogue):
    """The host's last block and, beside it, two dense layers to `codes` numbers, which see one image at a time.

    projection: two more, to as many numbers. Their product with the codes that an image is said to have says how much
    it looks so (projection discriminator, Miyato and Koyama 2018).
    """

    def __init__(self, *args: object, codes: int, projection: bool = False, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        width, flat = self.in_channels, self.in_channels * self.resolution**2
        self.codes_fc = networks.FullyConnectedLayer(flat, width, activation="lrelu")
        self.codes_out = networks.FullyConnectedLayer(width, codes)
        self.projection = projection
        if projection:
            self.projection_fc = networks.FullyConnectedLayer(flat, width, activation="lrelu")
            self.projection_out = networks.FullyConnectedLayer(width, codes)

    def forward(
        self, x: torch.Tensor, img: "torch.Tensor | None", cmap: "torch.Tensor | None", force_fp32: bool = False
    ) -> torch.Tensor:
        """As the host's → [N, 1 + codes (+ codes)]: the logit, the codes, and the projection"""
        flat = x.to(torch.float32).flatten(1)
        parts = [super().forward(x, img, cmap, force_fp32), self.codes_out(self.codes_fc(flat))]
        if self.projection:
            parts.append(self.projection_out(self.projection_fc(flat)))
        return torch.cat(parts, dim=1)


@persistence.persistent_class
class EncoderDiscriminator(networks.Discriminator):
    """The host's discriminator with a head for `codes` numbers, InfoGAN's Q (Chen et al. 2016).

    projection: with a head that says how well an image goes with given codes, too.
    """

    def __init__(self, *args: object, codes: int, projection: bool = False, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        plain = self.b4
        made_with = {**plain.init_kwargs, "codes": codes, "projection": projection}
        self.b4 = EncoderEpilogue(*plain.init_args, **made_with)
        self.num_codes = codes

    def forward(
        self, img: torch.Tensor, c: "torch.Tensor | None", codes: bool = False, **block_kwargs: object
    ) -> "torch.Tensor | tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
        """img [N, C, H, W], c [N, c_dim] → logits [N, 1].

        codes: returns those, the codes read off the images [N, codes], and the projection [N, codes or 0], whose
        product with an image's codes is to be added to its logit.
        """
        logits, read, projection = super().forward(img, c, **block_kwargs).tensor_split([1, 1 + self.num_codes], dim=1)
        return (logits, read, projection) if codes else logits
