"""The Kubernetes manifests: valid by Kubernetes' own schemas, unprivileged, and consistent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.main import get_command

from tunesvc.cli import app

FOLDER = Path(__file__).parents[2] / "docker" / "kubernetes"
VERSION = "1.34"
DOCUMENTS: list[dict[str, Any]] = [
    document
    for path in sorted(FOLDER.glob("*.yaml"))
    if path.name != "kustomization.yaml"
    for document in yaml.safe_load_all(path.read_text())
]
OF_KUBERNETES = [one for one in DOCUMENTS if one["apiVersion"] != "ray.io/v1"]
(DEPLOYMENT,) = (one for one in DOCUMENTS if one["kind"] == "Deployment")
(RAY,) = (one for one in DOCUMENTS if one["kind"] == "RayCluster")
SERVER = next(
    one for one in DEPLOYMENT["spec"]["template"]["spec"]["containers"] if one["name"] == "server"
)


def name_of(document: dict[str, Any]) -> str:
    return f"{document['kind']}-{document['metadata']['name']}"


def pod_specs() -> list[dict[str, Any]]:
    groups = [RAY["spec"]["headGroupSpec"], *RAY["spec"]["workerGroupSpecs"]]
    return [one["template"]["spec"] for one in (DEPLOYMENT["spec"], *groups)]


@pytest.mark.parametrize("document", OF_KUBERNETES, ids=name_of)
def test_a_manifest_follows_the_schema_of_its_kind(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, VERSION, strict=True)


def test_the_check_finds_a_misspelled_key() -> None:
    wrong = {**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


@pytest.mark.parametrize("spec", pod_specs())
def test_pods_of_a_ray_cluster_are_pods(spec: dict[str, Any]) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": spec}
    kubernetes_validate.validate(pod, VERSION, strict=True)


@pytest.mark.parametrize("spec", pod_specs())
def test_every_container_is_pinned_and_unprivileged(spec: dict[str, Any]) -> None:
    assert spec["securityContext"]["runAsNonRoot"]
    for container in spec["containers"]:
        assert container["image"] == "tunesvc:0.1.0"
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert "memory" in container["resources"]["limits"]


def test_every_file_is_applied() -> None:
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    others = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(listed) == others


def test_a_server_is_started_with_options_that_exist() -> None:
    program, *options = SERVER["command"]
    assert program == "tune-serve"  # docker/serve
    known = {name for one in get_command(app).commands["serve"].params for name in one.opts}
    assert {option.partition("=")[0] for option in options} <= known


def test_the_port_of_server_service_and_policy_is_one() -> None:
    (port,) = SERVER["ports"]
    assert f"--port={port['containerPort']}" in SERVER["command"]
    service = next(one for one in DOCUMENTS if one["kind"] == "Service")
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    policy = next(one for one in DOCUMENTS if name_of(one) == "NetworkPolicy-tunesvc")
    assert policy["spec"]["ingress"][0]["ports"] == [{"port": port["containerPort"]}]


def test_passwords_come_from_the_secret_only() -> None:
    text = "".join(path.read_text() for path in FOLDER.glob("*.yaml"))
    for variable in ("PASSWORD", "SECRET_ACCESS_KEY"):
        assert f"name: {variable}" not in text
    assert "://tunesvc:" not in text
