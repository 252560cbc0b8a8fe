"""The files of deploy/ray are what Ray Serve, Kubernetes and Prometheus take, and say the same."""

import subprocess
from typing import Any

import yaml

from service.settings import Settings
from tests.conftest import ROOT
from tests.needs import PROMETHEUS

FOLDER = ROOT / "deploy" / "ray"


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def test_ray_serve_takes_its_configuration_and_builds_the_application(ray_installed: None):
    from ray.serve.schema import ServeDeploySchema

    from service.on_ray.app import NAME, build, request_seconds

    config = ServeDeploySchema.model_validate(read("serve.yml"))
    (application,) = config.applications
    assert (application.name, application.import_path) == (NAME, f"{build.__module__}:{build.__name__}")
    deployment = build(application.args)._bound_deployment
    assert deployment.ray_actor_options["num_gpus"] == 1
    assert config.http_options.request_timeout_s == request_seconds(Settings(**application.args))


def test_the_manifest_has_the_same_configuration_and_the_pinned_ray():
    manifest = read("rayservice.yml")
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayService")
    assert manifest["spec"]["serveConfigV2"] == (FOLDER / "serve.yml").read_text()
    cluster = manifest["spec"]["rayClusterConfig"]
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert f"ray=={cluster['rayVersion']}" in pins
    assert cluster["authOptions"] == {"mode": "token"}
    (workers,) = cluster["workerGroupSpecs"]
    (args,) = (one["args"] for one in read("serve.yml")["applications"])
    for group in (cluster["headGroupSpec"], workers):
        spec = group["template"]["spec"]
        (container,) = spec["containers"]
        environment = {one["name"]: one["value"] for one in container["env"]}
        assert environment["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] == "service.on_ray.proxy.middlewares"
        mounted = {one["name"] for one in container["volumeMounts"]}
        assert mounted == {one["name"] for one in spec["volumes"]}
        assert spec["securityContext"]["runAsNonRoot"]
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    limits = container["resources"]["limits"]
    assert int(limits["cpu"]) >= args["ray_replica_cpus"]
    assert int(limits["nvidia.com/gpu"]) >= args["ray_replica_gpus"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    assert (workers["minReplicas"], workers["maxReplicas"]) == (args["ray_min_replicas"], args["ray_max_replicas"])


def test_prometheus_takes_its_configuration():
    promtool = PROMETHEUS.program("promtool")
    done = subprocess.run(
        [promtool, "check", "config", str(FOLDER / "prometheus.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
