"""What must be true of the files in jobs/: each check raises `AssertionError` and names what is wrong.

The tests run them on the files as they are, and on copies with a planted mistake.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import yaml
from typer.main import get_command

from diffgen import config
from diffgen.cli import app
from diffgen.errors import UserError
from tests.jobs import schemas

Pins = Mapping[str, str]
"""Package → version, with `python` and `diffgen` among them."""
OPTIONS = {  # option of the command line → the setting that it stands for, as in diffgen.cli
    "run": "places.run",
    "data": "places.data",
    "n": "synthesis.n",
    "size": "synthesis.size",
    "seed": "synthesis.seed",
    "samplers": "synthesis.samplers",
    "emit": "synthesis.emit",
    "tile": "synthesis.tile",
}
PLACES = (
    "sources",
    "data",
    "bundle",
    "masks",
    "init_from",
)  # options that name a folder, beside out and places.runs


def pins(constraints: str) -> dict[str, str]:
    """The versions of a constraints file."""
    lines = (line.split("#")[0].strip() for line in constraints.splitlines())
    return dict(line.split("==") for line in lines if line)


def commands(text: str) -> list[list[str]]:
    """Every `diffgen …` command of a file, in words: inline code, values of YAML, else indented blocks."""
    found = re.findall(r"`(diffgen [^`]+)`", text)
    try:
        documents = list(yaml.safe_load_all(text))
    except yaml.YAMLError:
        documents = []
    if documents and all(isinstance(document, dict) for document in documents):
        found += [string for string in _strings(documents) if string.startswith("diffgen ")]
    else:
        lines = re.sub(r"\\\n\s*", "", text)
        found += re.findall(r"(?:^    |-- )(diffgen [^`\n]+?)(?: +#.*)?$", lines, flags=re.MULTILINE)
    return [shlex.split(command) for command in dict.fromkeys(found)]


def _strings(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from _strings(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _strings(value)


def parse(words: list[str]) -> tuple[str, dict[str, Any], config.Settings]:
    """A command as the command line reads it: its name, its options, and its settings, all valid."""
    group: Any = get_command(app)
    try:
        top = group.make_context("diffgen", words[1:])
        name, command, rest = group.resolve_command(top, [*top._protected_args, *top.args])
        options = command.make_context(name, rest, parent=top).params
    except SystemExit as stopped:
        raise AssertionError(f"{shlex.join(words)}: does not parse") from stopped
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's own, of whatever copy of it typer has
            raise
        raise AssertionError(f"{shlex.join(words)}: {error.format_message()}") from error
    assert options.get("which", "both") in {"both", "image", "mask"}, options["which"]
    values = {setting: options.get(key) for key, setting in OPTIONS.items()}
    try:
        settings = config.load(
            options.get("config"),
            options.get("overrides") or (),
            options=values | {"places.out": options.get("out")},
        )
        config.parse_size(settings.synthesis.size)
    except UserError as error:
        raise AssertionError(f"{shlex.join(words)}: {error}") from error
    return str(name), options, settings


def check_command(words: list[str], shared: set[str]) -> None:
    """It is valid, and what it reads and writes is in one of the folders `shared` or behind a URL."""
    name, options, settings = parse(words)
    places = [place for key in PLACES for place in _listed(options.get(key))]
    needed = {"prepare": "out", "status": "out", "synthesize": "bundle", "doctor": "bundle"}.get(name, "data")
    assert options[needed], f"{shlex.join(words)}: --{needed} would be looked for on the node's own disk"
    written = {
        "prepare": options.get("out"),
        **dict.fromkeys(("synthesize", "status", "doctor"), settings.places.out),
    }
    places.append(written.get(name, settings.places.runs))
    for place in map(str, places):
        assert "://" in place or _inside(place, shared), f"{shlex.join(words)}: {place} is on one node's disk"


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def _inside(place: str, folders: set[str]) -> bool:
    path = PurePosixPath(place)
    return ".." not in path.parts and any(path.is_relative_to(folder) for folder in folders)


def check_image(image: str, versions: Pins) -> None:
    """A tag names the pinned Ray and Python, and ours the package's version as well."""
    name, _, tag = image.rpartition(":")
    python = "py" + versions["python"].replace(".", "")
    wanted = {
        "rayproject/ray": f"{versions['ray']}-{python}-gpu",
        "YOUR_REGISTRY/diffgen": f"{versions['diffgen']}-ray{versions['ray']}-{python}",
    }
    assert name in wanted, f"{image}: an image that nobody here builds"
    assert tag == wanted[name], f"{image}: the tag should be {wanted[name]}"


def images(text: str) -> list[str]:
    """Every image that a file names, in comments too."""
    return re.findall(r"(?:rayproject/ray|YOUR_REGISTRY/diffgen):[\w.-]*\w", text)


def check_rayjob(job: Mapping[str, Any], claims: Mapping[str, Mapping[str, Any]], versions: Pins) -> None:
    """A RayJob that can be lost and retried, and whose cluster is what its command asks for."""
    schemas.check(job)
    spec = job["spec"]
    assert spec["backoffLimit"] >= 1, "a lost cluster is not made anew"
    assert spec["shutdownAfterJobFinishes"] is True, "GPUs would be kept when the job is over"
    assert isinstance(yaml.safe_load(spec.get("runtimeEnvYAML", "{}")), dict)
    cluster = spec["rayClusterSpec"]
    assert cluster["rayVersion"] == versions["ray"], f"rayVersion {cluster['rayVersion']}"
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == "0", "work would be put on the head"
    for group in workers:
        bounds = [group[key] for key in ("minReplicas", "replicas", "maxReplicas")]
        assert bounds == sorted(bounds), f"{group['groupName']}: least, wanted and most nodes are {bounds}"
    pods = [group["template"]["spec"] for group in (head, *workers)]
    for pod in pods:
        check_image(pod["containers"][0]["image"], versions)
        drain = {entry["name"]: entry["value"] for entry in pod["containers"][0].get("env", [])}
        notice = float(drain.get("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", 30))
        grace = pod.get("terminationGracePeriodSeconds", 30)
        assert notice <= grace, f"killed after {grace} s, at {notice} s for saving"
    entrypoint = spec["entrypoint"]
    words = shlex.split(entrypoint)
    assert words == entrypoint.split(), "the entry point needs quotes: two shells would take them away"
    check_command(words, set.intersection(*(shared_mounts(pod, claims) for pod in pods)))
    check_capacity(
        words,
        gpus=[_gpus(group["template"]["spec"]) for group in workers for _ in range(group["maxReplicas"])],
        cpus=[int(g["rayStartParams"]["num-cpus"]) for g in workers for _ in range(g["maxReplicas"])],
    )


def shared_mounts(pod: Mapping[str, Any], claims: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Folders of a pod's first container that many pods can write to."""
    shared = set()
    for volume in pod.get("volumes", []):
        claim = claims.get(volume.get("persistentVolumeClaim", {}).get("claimName"))
        if claim is not None and "ReadWriteMany" in claim["spec"]["accessModes"]:
            shared.add(volume["name"])
    mounts = pod["containers"][0].get("volumeMounts", [])
    return {mount["mountPath"] for mount in mounts if mount["name"] in shared and not mount.get("readOnly")}


def _gpus(pod: Mapping[str, Any]) -> int:
    return int(pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu", 0))


def check_capacity(words: list[str], gpus: list[int], cpus: list[int]) -> None:
    """The nodes (GPUs and CPUs of each) hold all the workers or samplers that a command asks for."""
    name, _, settings = parse(words)
    if name == "train":
        assert settings.gpu is not False, f"{shlex.join(words)}: trains on CPUs"
        training = settings.on(gpu=True).training
        wanted, threads = training.worker_range[1], training.threads
    elif name == "synthesize":
        samplers = settings.synthesis.samplers
        wanted, threads = 1 if samplers == "auto" else samplers, settings.on(gpu=True).sampling.threads
    else:
        return
    room = sum(min(gpu, cpu // threads) for gpu, cpu in zip(gpus, cpus, strict=True))
    assert wanted <= room, f"{shlex.join(words)}: asks for {wanted} workers, there is room for {room}"


def vm_mounts(cluster: Mapping[str, Any]) -> set[str]:
    """Folders that `ray up` mounts from a file server on each node and shows to its container."""
    options = shlex.split(" ".join(cluster["docker"]["run_options"]))
    bound = {options[i + 1] for i, word in enumerate(options) if word in {"-v", "--volume"}}
    mounted = [c.split()[-1] for c in cluster["initialization_commands"] if "mount -t nfs4" in c]
    return {folder for folder in mounted if f"{folder}:{folder}" in bound}


def check_vms(cluster: Mapping[str, Any], versions: Pins) -> None:
    """A cluster file of Ray's own schema, whose head does no work and whose spot nodes come and go."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(dict(cluster)))
    check_image(cluster["docker"]["image"], versions)
    types = cluster["available_node_types"]
    head = types[cluster["head_node_type"]]
    assert head["resources"]["CPU"] == 0, "work would be put on the head"
    assert "InstanceMarketOptions" not in head["node_config"], "a spot head takes the cluster with it"
    workers = [kind for name, kind in types.items() if name != cluster["head_node_type"]]
    assert all(kind["min_workers"] <= kind["max_workers"] <= cluster["max_workers"] for kind in workers)
    assert cluster["idle_timeout_minutes"] > 0
    assert not cluster["setup_commands"], "Ray's own would install another Ray over that of the image"
    assert vm_mounts(cluster), "no folder is shared by the nodes"
