"""Generators on the hub: shared and fetched by real commands over HTTP, from a stand-in of the hub."""

import json
import shlex

import pytest
import torch
from hub_stand_in import TOKEN, serving

from helpers import make_dataset, run
from segan_ext.semantics.extractors import LSE, save_extractor
from snapshots import hub
from snapshots.safetensors import save_safetensors
from snapshots.save import save_snapshot
from test_segan_networks import build, images, randomise
from training import networks

NOWHERE = dict(HF_ENDPOINT="http://127.0.0.1:9")  # where nobody listens


@pytest.fixture
def place(tmp_path):
    """(the hub, environment of a user of it, a folder)"""
    with serving() as (stand_in, address):
        env = dict(HF_ENDPOINT=address, HF_HOME=str(tmp_path / "home"), HF_TOKEN=TOKEN, HF_HUB_DISABLE_TELEMETRY="1")
        env |= dict(HF_HUB_DISABLE_XET="1", HF_HUB_OFFLINE="0", NO_PROXY="*")
        yield stand_in, env, tmp_path


def named():
    """A generator with names"""
    own = [dict(name="hair", values=["short", "long"], shares=[0.5, 0.5]), dict(name="tilt", size=1, quantiles=None)]
    return randomise(build(mode="named", own=own))


def export(env, *args, **kwargs):
    return run("-m segan_ext", "export", *args, env=env, **kwargs)


def test_shared_and_fetched_again_bit_for_bit(place):
    stand_in, env, folder = place
    G = named()
    path, _ = save_safetensors(G, str(folder / "G.safetensors"))
    (folder / "atlas.html").write_text("<script>\nconst entries = [];\n</script>")
    save_extractor(folder / "finder.safetensors", LSE(["b8.conv1"], [16], ["background", "hair"]))
    given = [f"--network={path}", "--to=hub:somebody/faces", "--licence=cc-by-4.0"]
    done = export(env, *given, f"--extractor={folder / 'finder.safetensors'}")
    repository = stand_in.repositories["somebody/faces"]
    sha, files = stand_in.find("somebody/faces")
    assert repository["private"] and f"--network=hub:somebody/faces@{sha}" in done.stdout
    assert {"generator.safetensors", "generator.json", "README.md", "samples.png", "controls.png"} <= set(files)
    assert {"directions.json", "atlas.html", "extractor.safetensors"} <= set(files)
    assert files["generator.safetensors"] == (folder / "G.safetensors").read_bytes()
    assert files["samples.png"][:4] == files["controls.png"][:4] == b"\x89PNG"
    assert [each["name"] for each in json.loads(files["directions.json"])["directions"]] == ["hair", "tilt"]

    code = "import sys, torch, segan_ext; G = segan_ext.load_generator('hub:somebody/faces')\n"
    code += "sys.path.append('tests'); from test_segan_networks import images; torch.save(images(G), sys.argv[1])"
    run("-c", code, folder / "images.pt", env=env)
    assert torch.equal(torch.load(folder / "images.pt"), images(G))

    # what does not change is not fetched again, and without a network the cache serves
    before = len([each for each in stand_in.requests if each[0] == "GET" and "/resolve/" in each[1]])
    sample = ["-m segan_ext", "samples", "--network=hub:somebody/faces", "--grid=2x1"]
    run(*sample, f"--dest={folder / 'online.png'}", env=env)
    assert before == len([each for each in stand_in.requests if each[0] == "GET" and "/resolve/" in each[1]])
    for offline in (env | NOWHERE, env | dict(HF_HUB_OFFLINE="1")):
        run(*sample, f"--dest={folder / 'offline.png'}", env=offline)
        assert (folder / "offline.png").read_bytes() == (folder / "online.png").read_bytes()


def test_the_card_says_what_a_generator_is_and_its_lines_run(place):
    stand_in, env, folder = place
    run_dir = folder / "run"
    run_dir.mkdir()
    G, D = named(), networks.Discriminator(0, 32, 3, channel_base=512, channel_max=16)
    network = run_dir / "network-snapshot-000055.pkl"
    save_snapshot(network, dict(G=G, D=D, G_ema=G, augment_pipe=None, training_set_kwargs=None))
    lines = [
        dict(results=dict(kid50k_full=value), protocol=dict(seed=0), snapshot_pkl=f"network-snapshot-{kimg}.pkl")
        for value, kimg in ((0.5, "000010"), (0.25, "000055"))
    ]
    (run_dir / "metric-kid50k_full.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    export(env, f"--network={network}", "--to=hub:somebody/run", "--licence=mit", "--public")
    assert not stand_in.repositories["somebody/run"]["private"]
    text = stand_in.find("somebody/run")[1]["README.md"].decode()
    assert text.startswith("---\nlicense: mit\n") and "| hair | -1.0 to +1.0 |" in text
    assert "| `kid50k_full` | 0.25 (seed: 0) |" in text and "0.5 (" not in text
    assert "| images | 32×32, colour |" in text
    commands = [line for line in text.splitlines() if line.startswith("python -m segan_ext")]
    assert [line.split()[3] for line in commands] == ["samples", "edit", "web"]
    edit = shlex.split(commands[1])[3:]
    edit[-1] = f"--outdir={folder / 'out'}"
    run("-m segan_ext", *edit, env=env)
    assert (folder / "out" / "seed0000.png").is_file()


def test_a_revision_stays_what_it_was_and_networks_without_names_can_be_shared(place):
    stand_in, env, folder = place
    pinned = []
    for i, G in enumerate((build(mode=0, c_dim=3, img_channels=1), randomise(build(mode=2)))):
        path, _ = save_safetensors(G, str(folder / f"G{i}.safetensors"))
        export(env, f"--network={path}", "--to=hub:somebody/twice", "--licence=other")
        sha, files = stand_in.find("somebody/twice")
        pinned.append(sha)
        assert ("controls.png" in files) == (i == 1) and "directions.json" not in files
    for revision, which in ((f"@{pinned[0]}", 0), ("", 1), ("@main", 1)):
        dest = folder / f"again{which}.safetensors"
        export(env, f"--network=hub:somebody/twice{revision}", f"--dest={dest}")
        assert dest.read_bytes() == (folder / f"G{which}.safetensors").read_bytes()


# Several exports by one user, each in a line of JSON: exit code and sentence.
EXPORTS = """
import json, sys, click
from segan_ext import cli
for line in sys.stdin.read().splitlines():
    try:
        cli.main(["export", *json.loads(line)], standalone_mode=False)
        said = (0, "")
    except click.UsageError as error:
        said = (error.exit_code, error.format_message())
    print("said", json.dumps(said))
"""


def refusals(user, lines):
    """(exit code, sentence) of every export"""
    done = run("-c", EXPORTS, env=user, input="\n".join(map(json.dumps, lines)))
    return [json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith("said ")], done.stderr


def test_what_cannot_be_had_is_said_in_a_sentence(place):
    stand_in, env, folder = place
    path, _ = save_safetensors(build(mode=2), str(folder / "G.safetensors"))
    stand_in.create("somebody/hidden", private=True)
    stand_in.create("somebody/other", private=False)
    stand_in.commit("somebody/other", {"model.bin": b"?"})
    dest, share = f"--dest={folder / 'x.safetensors'}", [f"--network={path}", "--to=hub:somebody/new"]
    licence, stranger = "--licence=mit", env | dict(HF_TOKEN="hf_wrong")
    cases = [
        (env, ["--network=hub:faces", dest], "names nothing on the hub; write hub:OWNER/NAME"),
        (env, ["--network=hub:somebody/nothing", dest], "no such repository, or it is private"),
        (env, ["--network=hub:somebody/other", dest], "has no generator.safetensors"),
        (env, ["--network=hub:somebody/other@v9", dest], "no such revision"),
        (env, [*share, dest, licence], "one of the two"),
        (env, [share[0], "--to=hub:somebody/new@v1", licence], "a revision is what an upload makes"),
        (env, share, "--licence: '' is no licence as the hub names them"),
        (env, [*share, "--licence=cc-by-9.9"], '"license" must be one of'),
        (env, [*share, licence, f"--atlas={path}"], "--atlas: "),
        (env, [*share, licence, f"--extractor={path}"], "--extractor: "),
        (env, [share[0], "--to=hub:elsewhere/new", licence], "don't have the rights"),
        (stranger, ["--network=hub:somebody/hidden", dest], "no such repository, or it is private"),
        (stranger, [*share, licence], "(Invalid username or password.); `hf auth login`"),
        (env | NOWHERE, ["--network=hub:somebody/other@v1", dest], "cannot be reached, and the cache does not hold it"),
        (env | NOWHERE, [*share, licence], "--to: hub:somebody/new: "),
    ]
    for user in (env, stranger, env | NOWHERE):
        mine = [(args, sentence) for who, args, sentence in cases if who == user]
        said, stderr = refusals(user, [args for args, _ in mine])
        assert "Traceback" not in stderr and len(said) == len(mine)
        for (code, message), (args, sentence) in zip(said, mine):
            assert code == 2 and sentence in message and "\n" not in message, (args, message)
    assert "somebody/new" not in stand_in.repositories or not stand_in.find("somebody/new")[1]


def test_without_huggingface_hub_a_sentence_says_what_to_install(tmp_path):
    (tmp_path / "huggingface_hub.py").write_text("raise ImportError('absent')")
    args = ["--network=hub:somebody/faces", f"--dest={tmp_path / 'x.png'}"]
    done = run("-m segan_ext", "samples", *args, check=False, env=dict(PYTHONPATH=str(tmp_path)))
    assert done.returncode == 2 and "pip install 'segan[hub]'" in done.stderr and "Traceback" not in done.stderr


def test_training_does_not_start_from_a_generator_alone(tmp_path):
    data = make_dataset(tmp_path / "data.zip", count=4)
    for source in ("hub:somebody/faces", "G.safetensors"):
        done = run("train_segan.py", f"--data={data}", f"--resume={source}", "--dry-run", check=False)
        assert done.returncode == 2 and "without a discriminator" in done.stderr


@pytest.mark.parametrize("address", ["hub:", "hub:a", "hub:a/b/c", "hub:a/b@", "hub:a/b@../c", "hub:-a/b", "hub:a/b\n"])
def test_only_addresses_of_a_repository_are_taken(address):
    with pytest.raises(ValueError, match="names nothing on the hub"):
        hub.parse(address)


def test_addresses_and_paths():
    assert hub.parse("hub:a/b.c-d_e@feature/x") == ("a/b.c-d_e", "feature/x")
    assert hub.local_path("folder/G.pkl") == "folder/G.pkl"
