"""Kubernetes documents against the schemas beside this file; what Kubernetes would prune is an error."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

HERE = Path(__file__).parent
SCHEMAS = {
    "kubernetes.json": json.loads((HERE / "kubernetes.json").read_text(encoding="utf-8")),
    "rayjob.yaml": yaml.safe_load((HERE / "rayjob.yaml").read_text(encoding="utf-8")),
}
KINDS = {"RayJob": "rayjob.yaml", "PersistentVolumeClaim": "kubernetes.json#/$defs/PersistentVolumeClaim"}
"""Kinds of documents that there is a schema of."""
MAPS = ("rayStartParams", "limits", "requests")
"""Fields of ours whose keys are the user's, not the schema's."""
REGISTRY: Registry[Any] = Registry().with_resources(
    (name, DRAFT202012.create_resource(schema)) for name, schema in SCHEMAS.items()
)


def check(document: Any) -> None:
    """`AssertionError` names what a document of one of `KINDS` has wrong, field by field."""
    validator = Draft202012Validator({"$ref": KINDS[document["kind"]]}, registry=REGISTRY)
    wrong = [f"{error.json_path[2:]}: {error.message}" for error in validator.iter_errors(document)]
    assert not wrong, "; ".join(wrong)


def fields(tree: Any, way: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Paths of all fields in a document whose names are the schema's."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield (*way, name)
            if name not in MAPS:
                yield from fields(value, (*way, name))
    elif isinstance(tree, list):
        for k, value in enumerate(tree):
            yield from fields(value, (*way, k))
