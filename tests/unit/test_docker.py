"""The container files keep what their README promises: pinned, unprivileged, checked, no secret
in sight."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

import tunesvc
from tunesvc.cli import app

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"].startswith("tunesvc:")]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()

every_service = pytest.mark.parametrize("name", SERVICES)


@every_service
def test_every_image_is_pinned_to_a_version(name: str) -> None:
    assert re.search(r":\d+\.\d+(\.\d+)?[\w.-]*$", SERVICES[name]["image"])


@every_service
def test_every_service_has_a_health_check(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


@every_service
def test_every_service_waits_until_what_it_needs_is_healthy(name: str) -> None:
    for needed, wait in SERVICES[name].get("depends_on", {}).items():
        assert wait == {"condition": "service_healthy"}
        assert needed in SERVICES


@every_service
def test_nothing_is_published_beyond_the_loopback(name: str) -> None:
    assert SERVICES[name].get("network_mode") is None
    for port in SERVICES[name].get("ports", []):
        assert str(port).startswith("127.0.0.1:")


@every_service
def test_secrets_come_as_files_only(name: str) -> None:
    for variable, value in SERVICES[name].get("environment", {}).items():
        if re.search("PASSWORD|TOKEN|SECRET", variable):
            assert variable.endswith(("_FILE", "_PATH"))
            assert Path(value).name in SERVICES[name]["secrets"]
        assert not re.search(r"://[^/]*:[^/]*@", str(value)), f"{variable} bears a password"


@pytest.mark.parametrize("name", OURS)
def test_our_services_run_without_privileges_and_with_the_token(name: str) -> None:
    service = SERVICES[name]
    assert service["user"] == "10001:10001"
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["environment"]["RAY_AUTH_MODE"] == "token"


def test_the_server_is_started_with_options_that_exist() -> None:
    program, *options = SERVICES["tunesvc"]["command"]
    assert program == "tune-serve"
    assert "COPY docker/serve /usr/local/bin/tune-serve" in DOCKERFILE
    known = {name for one in get_command(app).commands["serve"].params for name in one.opts}
    assert {option.partition("=")[0] for option in options} <= known


def test_every_volume_secret_and_network_is_declared() -> None:
    for service in SERVICES.values():
        named = (
            {v.split(":")[0] for v in service["volumes"] if not v.startswith(".")}
            if "volumes" in service
            else set()
        )
        assert named <= set(COMPOSE["volumes"])
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
        assert set(service["networks"]) <= set(COMPOSE["networks"])


def test_the_image_is_built_from_a_pinned_python_and_the_locked_dependencies() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert all(re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base) for base in bases)
    assert "--require-hashes --requirement requirements.lock" in DOCKERFILE


def test_the_image_ends_as_an_unprivileged_user_with_a_health_check() -> None:
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE)[-1] == "10001:10001"
    assert re.search(r"^HEALTHCHECK .*CMD \[", DOCKERFILE, re.MULTILINE)


def test_the_image_is_named_after_this_version() -> None:
    assert {SERVICES[name]["image"] for name in OURS} == {f"tunesvc:{tunesvc.__version__}"}


def test_the_lock_pins_every_requirement_with_hashes_and_names_no_registry() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    blocks = re.findall(r"^\S.*(?:\n    .*)*", lock, re.MULTILINE)
    pins = [block for block in blocks if not block.startswith("#")]
    assert len(pins) > 40
    assert all(re.match(r"[\w.\-\[\],]+==\S+ \\\n    --hash=sha256:", pin) for pin in pins)
    assert "://" not in lock
    assert "index" not in lock
