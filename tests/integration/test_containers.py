"""The container files: Compose accepts them, hadolint has nothing to say, and they keep our rules."""

import json
import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any, Final

import pytest

from listener.config.settings import load_settings

ROOT: Final = Path(__file__).resolve().parents[2]
DOCKERFILES: Final = ("Dockerfile", "contracts/Dockerfile", "web/backend/Dockerfile")
FACTORY: Final = "0xe7f1725E7734CE288F8367e1Bb143E90bb3F0512"
TIMEOUT_S: Final = 30


def tool(name: str) -> str:
    """The path of a tool that comes with the development dependencies."""
    scripts = sysconfig.get_path("scripts")
    found = shutil.which(name, path=os.pathsep.join((scripts, os.environ.get("PATH", ""))))
    assert found, f"{name} is missing: install requirements-dev.txt"
    return found


def compose(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`docker-compose` on the compose file in `folder`, with nothing else in its environment."""
    return subprocess.run(
        [tool("docker-compose"), "-f", "docker-compose.yml", *arguments],
        cwd=folder,
        env={"PATH": os.environ.get("PATH", ""), "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def services(folder: Path) -> dict[str, dict[str, Any]]:
    """The services as Compose understands them."""
    result = compose(folder, "config", "--format", "json")
    assert result.returncode == 0, result.stderr
    found: dict[str, dict[str, Any]] = json.loads(result.stdout)["services"]
    return found


def dockerfile_of(service: dict[str, Any], folder: Path) -> Path | None:
    """The repository's Dockerfile that builds a service; None for a ready image."""
    build = service.get("build")
    if build is None:
        return None
    context = ROOT / Path(build["context"]).relative_to(folder)
    return context / str(build["dockerfile"])


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Instruction and arguments of every line, comments and continuations resolved."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", dockerfile.read_text()))
    parts = (line.partition(" ") for line in text.splitlines() if line.strip())
    return [(name, arguments.strip()) for name, _, arguments in parts]


def last_stage(dockerfile: Path) -> list[tuple[str, str]]:
    """Instructions of the stage that becomes the image."""
    found = instructions(dockerfile)
    start = max(place for place, (name, _) in enumerate(found) if name == "FROM")
    return found[start:]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the compose file and nothing else: no `.env` of the developer's."""
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    return tmp_path


def test_compose_file_is_valid_without_settings(folder: Path) -> None:
    """A fresh clone has no `.env`, and Compose neither fails nor warns."""
    result = compose(folder, "config", "-q")
    assert (result.returncode, result.stderr) == (0, "")


def test_compose_file_is_valid_with_the_example_as_settings(folder: Path) -> None:
    """`cp env.example .env` is the documented first step; addresses stay those of the stack."""
    shutil.copy(ROOT / "env.example", folder / ".env")
    result = compose(folder, "config", "-q")
    assert (result.returncode, result.stderr) == (0, "")
    environment = services(folder)["listener"]["environment"]
    assert environment["BLOCKCHAIN_HTTP_URL"] == "http://chain:8545"
    assert environment["REDIS_URL"].startswith("redis://redis:")
    assert environment["WEBSOCKET_HOST"] == "0.0.0.0"  # noqa: S104 - inside its container


def test_settings_of_env_file_win(folder: Path) -> None:
    """Secrets and addresses come from `.env`; listener and backend get the same token."""
    (folder / ".env").write_text(
        "BACKEND_AUTH_TOKEN=a-secret-of-mine\nBLOCKCHAIN_HTTP_URL=https://node.example.org\n"
        "BLOCKCHAIN_WS_URL=\nCHAIN_ID=1\nFINALITY_WINDOW=32\n"
    )
    found = services(folder)
    listener, backend = found["listener"]["environment"], found["backend"]["environment"]
    assert listener["BACKEND_AUTH_TOKEN"] == backend["BACKEND_AUTH_TOKEN"] == "a-secret-of-mine"
    assert listener["BLOCKCHAIN_HTTP_URL"] == "https://node.example.org"
    assert listener["BLOCKCHAIN_WS_URL"] == ""
    assert listener["CHAIN_ID"] == backend["CHAIN_ID"] == "1"
    assert listener["FINALITY_WINDOW"] == "32"


def test_stack_has_its_five_services_in_order(folder: Path) -> None:
    """Chain, Redis, backend, listener and gateway; each waits until what it needs is healthy."""
    found = services(folder)
    assert set(found) == {"chain", "redis", "backend", "listener", "gateway"}
    needs = {
        name: {other: rule["condition"] for other, rule in service.get("depends_on", {}).items()}
        for name, service in found.items()
    }
    healthy = "service_healthy"
    assert needs["listener"] == {"chain": healthy, "redis": healthy, "backend": healthy}
    assert needs["backend"] == needs["gateway"] == {"redis": healthy}
    assert all(service["restart"] != "no" for service in found.values())
    assert found["listener"]["environment"]["BONDING_CURVE_FACTORY_ADDRESS"] == FACTORY


def test_every_service_has_a_health_check(folder: Path) -> None:
    """`service_healthy` never comes for a service without a health check."""
    for name, service in services(folder).items():
        dockerfile = dockerfile_of(service, folder)
        in_image = dockerfile is not None and "HEALTHCHECK" in dict(last_stage(dockerfile))
        assert in_image or service.get("healthcheck", {}).get("test"), name


def test_gateway_serves_what_the_listener_writes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It publishes the port at which it listens, on the same Redis and chain, and starts without a token."""
    found = services(folder)
    gateway, listener = found["gateway"], found["listener"]["environment"]
    assert gateway["command"] == ["listener", "serve"]
    assert [(port["published"], str(port["target"])) for port in gateway["ports"]] == [
        ("8080", gateway["environment"]["WEBSOCKET_PORT"])
    ]
    for name in ("REDIS_URL", "CHAIN_ID", "BONDING_CURVE_FACTORY_ADDRESS"):
        assert gateway["environment"][name] == listener[name]
    assert listener["GATEWAY_ENABLED"] == "false"
    assert listener["BACKEND_SOCKET_URL"], "without a backend and a gateway of its own it would write no rows"
    assert "BACKEND_AUTH_TOKEN" not in gateway["environment"]
    for name, value in gateway["environment"].items():
        monkeypatch.setenv(name, value)
    load_settings(_env_file=None)


def test_listener_publishes_no_port(folder: Path) -> None:
    """`docker-compose up --scale listener=3` must not clash over a host port or a container name."""
    listener = services(folder)["listener"]
    assert not listener.get("ports")
    assert "container_name" not in listener


def test_published_ports_are_on_the_loopback_address(folder: Path) -> None:
    """The development stack has well-known secrets: nobody else on the network may reach it."""
    for name, service in services(folder).items():
        for port in service.get("ports", ()):
            assert port["host_ip"] == "127.0.0.1", name


def test_redis_never_evicts_and_persists(folder: Path) -> None:
    """An evicted or forgotten key would be a hole in a stream."""
    redis = services(folder)["redis"]
    command = " ".join(redis["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    assert [volume["target"] for volume in redis["volumes"]] == ["/data"]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_has_nothing_to_say(name: str) -> None:
    """Every Dockerfile follows the linter's rules, without exceptions."""
    result = subprocess.run(
        [tool("hadolint"), "--no-color", ROOT / name],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "")


def test_every_dockerfile_is_checked() -> None:
    """A new Dockerfile must join the list."""
    found = {
        str(path.relative_to(ROOT))
        for pattern in ("Dockerfile", "*/Dockerfile", "*/*/Dockerfile")
        for path in ROOT.glob(pattern)
        if "node_modules" not in path.parts
    }
    assert found == set(DOCKERFILES)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_images_run_as_an_ordinary_user(name: str) -> None:
    """A numeric user that is not root, so that a cluster can check it without starting the image."""
    user = dict(last_stage(ROOT / name))["USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_base_images_are_pinned_by_tag(name: str) -> None:
    """`latest` is another image tomorrow."""
    found = instructions(ROOT / name)
    images = [arguments.split()[0] for instruction, arguments in found if instruction == "FROM"]
    assert all(re.fullmatch(r"[\w./-]+:\d[\w.-]*", image) for image in images), images


def test_listener_image_is_built_from_the_hashed_lock() -> None:
    """Nothing enters the image that the lock file does not name by its hash, and nothing is compiled."""
    found = instructions(ROOT / "Dockerfile")
    installs = [arguments for name, arguments in found if name == "RUN" and "pip install" in arguments]
    assert installs == [
        "pip install --require-hashes --only-binary=:all: -r requirements.txt",
        "pip install --no-deps .",
    ]
    final = last_stage(ROOT / "Dockerfile")
    assert not [arguments for name, arguments in final if name == "RUN"]


def test_listener_image_starts_checks_and_stops_the_service() -> None:
    """Its command, its probe and the signal that `listener.main` handles."""
    final = dict(last_stage(ROOT / "Dockerfile"))
    assert json.loads(final["CMD"]) == ["python", "-m", "listener.main"]
    assert final["HEALTHCHECK"].endswith('CMD ["listener", "health"]')
    assert final["STOPSIGNAL"] == "SIGTERM"


@pytest.mark.parametrize("name", ["Dockerfile", "contracts/Dockerfile"])
def test_build_context_lets_through_what_is_copied(name: str) -> None:
    """The ignore file names what may enter an image; a file that is copied but not named breaks the build."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {
        source
        for instruction, arguments in instructions(ROOT / name)
        if instruction == "COPY" and "--from" not in arguments
        for source in arguments.split()[:-1]
    }
    assert copied <= allowed
    assert not {".env", ".git", "node_modules"} & allowed
