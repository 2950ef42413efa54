"""The generators in the box are small, open by their name, and say where they come from."""

import pytest
import torch

from helpers import make_dataset, run
from segan_ext.control.named import named_directions
from segan_ext.semantics.extractors import open_extractor
from segan_ext.web.engine import Engine
from snapshots import box
from snapshots.load import load_generator


@pytest.mark.parametrize("name", box.names())
def test_it_opens_with_names_and_what_belongs_to_it(name):
    G = load_generator(name)
    assert G.img_resolution >= 64 and len(named_directions(G)) >= 8
    readme = open(box.find(name, "README.md"), encoding="utf-8").read()
    assert "train_segan.py --cfg=" in readme and "CC BY 4.0" in readme
    own = open_extractor(box.find(name, box.EXTRACTOR), G)
    opened = Engine(box.names()).network(name)  # with its own extractor and atlas
    for kept, expected in zip(opened.extractor.state_dict().values(), own.state_dict().values()):
        assert torch.equal(kept, expected)
    assert any(opened.names.values()) and sorted(opened.named) == sorted(named_directions(G))


def test_other_names_are_files():
    assert "avatars64" in box.names()
    assert box.find("avatars64", "nothing.html") is None
    assert box.find("avatars65") is box.find("../box/avatars64") is box.find(None) is None
    with pytest.raises(ValueError, match="avatars65 is no file, and in the box there are avatars64"):
        load_generator("avatars65")


def test_they_are_generators_without_a_discriminator(tmp_path):
    data = make_dataset(tmp_path / "discs.zip", count=8)
    done = run("-m segan_ext", "discover", "--network=avatars64", "--dest=found.pkl", check=False)
    assert done.returncode == 2 and "an export holds no discriminator" in done.stderr
    done = run("train_segan.py", "--cfg=segan-mode2", f"--data={data}", "--resume=avatars64", check=False)
    assert done.returncode == 2 and "avatars64 is a generator without a discriminator" in done.stderr
