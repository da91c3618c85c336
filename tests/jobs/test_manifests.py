"""The files of jobs/ agree with each other, with the pins and with the command line; mistakes are found."""

import copy
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffgen import __version__
from tests.jobs import checks

ROOT = Path(__file__).resolve().parent.parent.parent
JOBS = ROOT / "jobs"
TEXTS = {
    path.name: path.read_text(encoding="utf-8")
    for path in sorted(JOBS.iterdir())
    if path.suffix in {".yaml", ".md"} or path.name == "Dockerfile"
}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
VERSIONS = checks.pins((ROOT / "constraints.txt").read_text(encoding="utf-8")) | {
    "python": PYPROJECT["tool"]["mypy"]["python_version"],
    "diffgen": __version__,
}
CLAIM = yaml.safe_load(TEXTS["shared-volume.yaml"])
CLAIMS = {CLAIM["metadata"]["name"]: CLAIM}
CLUSTER = yaml.safe_load(TEXTS["cluster.yaml"])
RAYJOBS = ("rayjob-train.yaml", "rayjob-synthesize.yaml")
COMMANDS = [(name, words) for name, text in TEXTS.items() for words in checks.commands(text)]


def job(name: str) -> Any:
    return yaml.safe_load(TEXTS[name])


def set_at(tree: Any, path: str, value: Any) -> Any:
    """A copy of `tree` with another value at a path, numbers for places in lists."""
    tree = copy.deepcopy(tree)
    *way, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    node = tree
    for part in way:
        node = node[part]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return tree


@pytest.mark.parametrize("name", [name for name in TEXTS if name.endswith(".yaml")])
def test_every_yaml_file_parses(name: str) -> None:
    assert all(isinstance(document, dict) for document in yaml.safe_load_all(TEXTS[name]))


def test_nothing_is_looked_for_in_vain() -> None:
    """The tests below see all that is there: each kind of command, and images in most files."""
    found = {(name, words[1]) for name, words in COMMANDS}
    readme = {("README.md", command) for command in ("prepare", "train", "synthesize")}
    assert found >= readme | {("rayjob-train.yaml", "train"), ("rayjob-synthesize.yaml", "synthesize")}
    assert {name for name, text in TEXTS.items() if checks.images(text)} >= {
        *RAYJOBS,
        "Dockerfile",
        "cluster.yaml",
        "runtime-env-pip.yaml",
    }


@pytest.mark.parametrize(("name", "words"), COMMANDS)
def test_every_command_is_valid_and_works_on_shared_storage(name: str, words: list[str]) -> None:
    checks.check_command(words, checks.vm_mounts(CLUSTER) if name not in RAYJOBS else {"/shared"})


@pytest.mark.parametrize("name", TEXTS)
def test_every_image_has_the_pinned_versions(name: str) -> None:
    for image in checks.images(TEXTS[name]):
        checks.check_image(image, VERSIONS)


def test_our_image_is_made_of_the_pins_and_of_what_the_package_needs() -> None:
    text = TEXTS["Dockerfile"]
    assert re.findall(r"^FROM (.+)$", text, flags=re.MULTILINE) == checks.images(text)[-1:]
    installs = re.findall(r"^RUN pip install .*$", text, flags=re.MULTILINE)
    assert installs
    assert all("-c constraints.txt" in line for line in installs)
    copied = {
        word for line in re.findall(r"^COPY \S+ (.+) \S+$", text, re.MULTILINE) for word in line.split()
    }
    kept = re.findall(r"^!(.+)$", (JOBS / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert copied == set(kept)
    assert all((ROOT / path).exists() for path in copied)


@pytest.mark.parametrize("name", RAYJOBS)
def test_rayjobs(name: str) -> None:
    checks.check_rayjob(job(name), CLAIMS, VERSIONS)


def test_the_vm_cluster_and_the_commands_that_the_readme_sends_it() -> None:
    checks.check_vms(CLUSTER, VERSIONS)
    kinds = CLUSTER["available_node_types"]
    nodes = [kinds["gpu"]["resources"]] * kinds["gpu"]["max_workers"]
    for words in checks.commands(TEXTS["README.md"]):
        checks.check_capacity(words, [node["GPU"] for node in nodes], [node["CPU"] for node in nodes])


def test_jobs_that_are_submitted_have_a_valid_environment() -> None:
    from ray.runtime_env import RuntimeEnv

    for name in ("runtime-env.yaml", "runtime-env-pip.yaml"):
        RuntimeEnv(**yaml.safe_load(TEXTS[name]))
    lines = re.sub(r"\\\n\s*", "", TEXTS["README.md"])
    submitted = re.findall(r"ray job submit (.*?) -- (.*)", lines)
    assert len(submitted) == 3
    for options, _ in submitted:
        given = dict(re.findall(r"--(\S+) (\S+)", options))
        assert set(given) == {"working-dir", "runtime-env", "submission-id"}
        assert (ROOT / given["runtime-env"]).is_file()


@pytest.mark.parametrize("path", re.findall(r"`?jobs/([\w.-]+\.\w+)", "\n".join(TEXTS.values())))
def test_files_that_are_named_exist(path: str) -> None:
    assert (JOBS / path).is_file()


TRAIN = job("rayjob-train.yaml")["spec"]["entrypoint"]
WORKER = "spec/rayClusterSpec/workerGroupSpecs/0"
HEAD = "spec/rayClusterSpec/headGroupSpec"


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("spec/rayClusterSpec/rayVersion", "2.59.0", "rayVersion 2.59.0"),
        (
            f"{WORKER}/template/spec/containers/0/image",
            "rayproject/ray:2.59.0-py311-gpu",
            "the tag should be",
        ),
        (
            f"{WORKER}/template/spec/containers/0/image",
            "rayproject/ray:2.60.0-py310-gpu",
            "the tag should be",
        ),
        (f"{HEAD}/template/spec/containers/0/image", "YOUR_REGISTRY/diffgen:9.9-ray2.60.0-py311", "the tag"),
        (f"{HEAD}/template/spec/containers/0/image", "rayproject/ray-ml:2.60.0-py311-gpu", "nobody here"),
        (f"{HEAD}/rayStartParams/num-cpus", "4", "work would be put on the head"),
        (f"{HEAD}/template/spec/volumes/0", {"name": "shared", "emptyDir": {}}, "is on one node's disk"),
        (f"{WORKER}/template/spec/volumes/0/persistentVolumeClaim/claimName", "other", "on one node's disk"),
        (f"{WORKER}/template/spec/containers/0/volumeMounts", [], "is on one node's disk"),
        (f"{WORKER}/template/spec/containers/0/volumeMounts/0/mountPath", "/mnt", "on one node's disk"),
        (f"{WORKER}/template/spec/containers/0/volumeMounts/0/readOnly", True, "is on one node's disk"),
        (f"{WORKER}/template/spec/terminationGracePeriodSeconds", 30, "killed after 30 s"),
        (f"{WORKER}/maxReplicas", 3, "least, wanted and most nodes are [4, 4, 3]"),
        (f"{WORKER}/rayStartParams/num-cpus", "4", "there is room for 0"),
        ("spec/backoffLimit", 0, "not made anew"),
        ("spec/shutdownAfterJobFinishes", False, "GPUs would be kept"),
        ("spec/entryPoint", "diffgen train", "('entryPoint' was unexpected)"),
        ("spec/entrypoint", TRAIN.replace("[2,4]", "[2,8]"), "asks for 8 workers, there is room for 4"),
        ("spec/entrypoint", TRAIN.replace("[2,4]", "'[2, 4]'"), "needs quotes"),
        ("spec/entrypoint", TRAIN.replace("/shared/runs", "/home/ray/runs"), "/home/ray/runs is on one"),
        ("spec/entrypoint", TRAIN.replace("/shared/runs", "/shared/../runs"), "/shared/../runs is on one"),
        (
            "spec/entrypoint",
            TRAIN.replace("--set places.runs=/shared/runs", ""),
            "runs is on one node's disk",
        ),
        ("spec/entrypoint", TRAIN.replace("--data /shared/data", ""), "--data would be looked for"),
        ("spec/entrypoint", TRAIN.replace("places.runs", "places.run_folder"), "unknown key"),
        ("spec/entrypoint", TRAIN.replace("--config paper", "--config huge"), "preset 'huge' is unknown"),
        ("spec/entrypoint", TRAIN.replace("--config paper", "--confg paper"), "--confg"),
        ("spec/entrypoint", TRAIN.replace("diffgen train", "diffgen trian"), "trian"),
        ("spec/entrypoint", TRAIN.replace("diffgen train", "diffgen train masks"), "masks"),
    ],
)
def test_a_mistake_in_a_rayjob_is_found(path: str, value: Any, named: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(named)):
        checks.check_rayjob(set_at(job("rayjob-train.yaml"), path, value), CLAIMS, VERSIONS)


def test_a_volume_for_one_node_is_not_shared() -> None:
    claim = set_at(CLAIM, "spec/accessModes", ["ReadWriteOnce"])
    with pytest.raises(AssertionError, match="is on one node's disk"):
        checks.check_rayjob(job("rayjob-train.yaml"), {"diffgen-shared": claim}, VERSIONS)


def test_a_newer_pin_is_found_in_every_file() -> None:
    newer = VERSIONS | {"ray": "2.61.0"}
    for name in RAYJOBS:
        with pytest.raises(AssertionError, match=r"rayVersion 2\.60\.0"):
            checks.check_rayjob(job(name), CLAIMS, newer)
    for name in ("Dockerfile", "cluster.yaml", "runtime-env-pip.yaml"):
        with pytest.raises(AssertionError, match="the tag should be"):
            checks.check_image(checks.images(TEXTS[name])[0], newer)


@pytest.mark.parametrize(
    ("path", "value", "error", "named"),
    [
        ("idle_timeout_mins", 5, Exception, "idle_timeout_mins"),
        ("docker/image", "YOUR_REGISTRY/diffgen:0.2.0-ray2.59.0-py311", AssertionError, "the tag should be"),
        ("docker/run_options", ["-v /home:/shared"], AssertionError, "no folder is shared"),
        ("initialization_commands", ["sudo mkdir -p /shared"], AssertionError, "no folder is shared"),
        ("available_node_types/head/resources/CPU", 8, AssertionError, "work would be put on the head"),
        (
            "available_node_types/head/node_config/InstanceMarketOptions",
            {"MarketType": "spot"},
            AssertionError,
            "a spot head",
        ),
    ],
)
def test_a_mistake_in_the_vm_cluster_is_found(
    path: str, value: Any, error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        checks.check_vms(set_at(CLUSTER, path, value), VERSIONS)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("diffgen synthesize --bundle /shared/b --n 3", "out is on one node's disk"),
        ("diffgen synthesize --bundle /shared/b --n 3 --out out", "out is on one node's disk"),
        ("diffgen synthesize --bundle /sharedother/b --n 3 --out /shared/o", "/sharedother/b is on one"),
        ("diffgen synthesize --n 3 --out /shared/o", "--bundle would be looked for"),
        ("diffgen synthesize --bundle /shared/b --n none --out /shared/o", "none"),
        ("diffgen synthesize --bundle /shared/b --size 2k --out /shared/o", "2k"),
        ("diffgen synthesize --bundle /shared/b --samplers few --out /shared/o", "few"),
        ("diffgen prepare /slides --out /shared/data", "/slides is on one node's disk"),
        ("diffgen prepare /shared/slides", "--out would be looked for"),
        ("diffgen encode --data /shared/d", "runs is on one node's disk"),
        ("diffgen train --data /shared/d --set places.runs=/shared/r --init-from b", "b is on one"),
        ("diffgen prepare", "does not parse|Missing|missing"),
    ],
)
def test_a_mistake_in_a_command_is_found(words: str, named: str) -> None:
    with pytest.raises(AssertionError, match=named):
        checks.check_command(words.split(), {"/shared"})


def test_a_bucket_is_shared() -> None:
    checks.check_command(
        ["diffgen", "synthesize", "--bundle", "/shared/b", "--n", "3", "--out", "s3://bucket/x"], {"/shared"}
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("say `diffgen train --run a` or diffgen nothing", ["diffgen train --run a"]),
        ("    diffgen train --run a  # the first\n", ["diffgen train --run a"]),
        ("    ray job submit -- \\\n        diffgen train \\\n   --run a\n", ["diffgen train --run a"]),
        ("spec:\n  entrypoint: >-\n    diffgen train\n    --run a\n", ["diffgen train --run a"]),
        ("name: diffgen\nimage: x/diffgen:1\n", []),
    ],
)
def test_commands_are_found_where_people_write_them(text: str, found: list[str]) -> None:
    assert [" ".join(words) for words in checks.commands(text)] == found
