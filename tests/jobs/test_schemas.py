"""The Kubernetes documents of jobs/ have fields that Kubernetes and KubeRay know, of their types."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.jobs import schemas

JOBS = Path(__file__).resolve().parent.parent.parent / "jobs"
DOCUMENTS = {
    f"{path.name} {k}": document
    for path in sorted(JOBS.glob("*.yaml"))
    for k, document in enumerate(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    if "apiVersion" in document
}
TRAIN = DOCUMENTS["rayjob-train.yaml 0"]
WORKER = ("spec", "rayClusterSpec", "workerGroupSpecs", 0)
CONTAINER = (*WORKER, "template", "spec", "containers", 0)


def renamed(document: Any, way: tuple[str | int, ...], name: str) -> Any:
    """A copy with another name of one field."""
    document = copy.deepcopy(document)
    *above, last = way
    node = document
    for step in above:
        node = node[step]
    node[name] = node.pop(last)
    return document


def changed(document: Any, way: tuple[str | int, ...], value: Any) -> Any:
    document = copy.deepcopy(document)
    *above, last = way
    node = document
    for step in above:
        node = node[step]
    node[last] = value
    return document


@pytest.mark.parametrize("name", schemas.SCHEMAS)
def test_a_schema_is_one(name: str) -> None:
    Draft202012Validator.check_schema(schemas.SCHEMAS[name])


def test_every_document_is_looked_at() -> None:
    kinds = [document["kind"] for document in DOCUMENTS.values()]
    assert sorted(kinds) == ["PersistentVolumeClaim", "RayJob", "RayJob"]
    assert set(kinds) == set(schemas.KINDS)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_are_what_their_kind_says(name: str) -> None:
    schemas.check(DOCUMENTS[name])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_typing_error_in_any_field_name_is_found(name: str) -> None:
    """Each name once with a letter gone, and once with another case: a schema does not forgive."""
    document = DOCUMENTS[name]
    ways = [way for way in schemas.fields(document) if way != ("kind",)]
    assert len(ways) > 5
    for way in ways:
        right = str(way[-1])
        for wrong in (right[:-1], right.swapcase()):
            with pytest.raises(AssertionError, match=re.escape(repr(wrong))):
                schemas.check(renamed(document, way, wrong))


@pytest.mark.parametrize(
    ("way", "value", "named"),
    [
        ((*WORKER, "replicas"), "4", "'4' is not of type 'integer'"),
        ((*WORKER, "rayStartParams", "num-cpus"), 8, "8 is not of type 'string'"),  # Go wants a string
        ((*CONTAINER, "resources", "limits", "memory"), "48 GB", "limits.memory"),
        ((*CONTAINER, "env", 0, "value"), 90, "90 is not of type"),
        ((*CONTAINER, "volumeMounts", 0), {"name": "shared"}, "'mountPath' is a required property"),
        ((*WORKER, "template", "spec", "terminationGracePeriodSeconds"), "120s", "'120s' is not of type"),
        (("spec", "rayClusterSpec", "rayVersion"), 2.6, "2.6 is not of type 'string'"),
        (("spec", "runtimeEnvYAML"), {"env_vars": {}}, "is not of type 'string'"),
        (("apiVersion",), "ray.io/v1alpha1", "'ray.io/v1' was expected"),
    ],
)
def test_a_value_of_another_type_is_found(way: tuple[str | int, ...], value: Any, named: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(named)):
        schemas.check(changed(TRAIN, way, value))
