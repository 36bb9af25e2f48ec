"""The files that set machines up, beside docs/cluster.md: of the kinds they claim to be, and naming what is there."""

import json
import re

import pytest
import yaml

from tests.helpers.places import ROOT

CLUSTER = ROOT / "docs" / "cluster"


def test_the_compose_file_is_one() -> None:
    compose_spec = pytest.importorskip("compose_spec")
    values = {"DATA": "/data", "UID": "1000", "GID": "1000", "POSTGRES_PASSWORD": "secret"}
    text = re.sub(r"\$\{(\w+)[^}]*\}", lambda match: values[match[1]], (CLUSTER / "compose.yaml").read_text())
    parsed = compose_spec.PyCompose.from_yaml(text)
    plain = yaml.safe_load(text)
    assert set(parsed.service_names()) == {"database", "server", "pool", "worker"}
    for service in plain["services"].values():
        assert set(service.get("depends_on", ())) <= set(plain["services"])
        dockerfile = service.get("build", {}).get("dockerfile")
        assert dockerfile is None or (CLUSTER.parent.parent / dockerfile).is_file()


def test_the_manifests_are_kubernetes_own() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    parts = list(yaml.safe_load_all((CLUSTER / "kubernetes.yaml").read_text()))
    for part in parts:
        kubernetes_validate.validate(part, kubernetes_validate.latest_version(), strict=True)
    named = {(part["kind"], part["metadata"]["name"]) for part in parts}
    text = json.dumps(parts)
    assert {("Secret", name) for name in re.findall(r'"secretKeyRef": {"name": "([^"]+)"', text)} <= named
    assert {("Secret", name) for name in re.findall(r'"secretRef": {"name": "([^"]+)"', text)} <= named
    assert {("PersistentVolumeClaim", name) for name in re.findall(r'"claimName": "([^"]+)"', text)} <= named


@pytest.mark.parametrize("name", ["Dockerfile.cpu", "Dockerfile.cuda"])
def test_the_images_take_files_that_are_there(name: str) -> None:
    text = (CLUSTER / name).read_text()
    sources = [word for words in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for word in words.split()]
    assert len(sources) > 5
    assert all((CLUSTER.parent.parent / source).exists() for source in sources)
    let_in = re.findall(r"^!(.+)$", (CLUSTER / f"{name}.dockerignore").read_text(), re.MULTILINE)
    assert set(sources) <= set(let_in)
