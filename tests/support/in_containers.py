"""Check what is in deploy/containers without a Docker or a Kubernetes: ``make test-containers``.

docker-compose reads the compose file. dagster-k8s makes of the chart's values the job that its
launcher would start for a run, and Kubernetes' own schema judges that. Nothing is started.

Root, for Debian's docker-compose, which it installs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from in_celery import PYTHON, ROOT, prepare

FOLDER = ROOT / "deploy" / "containers"

JOB = """\
import sys, yaml
from types import SimpleNamespace
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import construct_dagster_k8s_job
from kubernetes.client import ApiClient
import kubernetes_validate as schema

values = yaml.safe_load(open(sys.argv[1]))
(code,) = values["dagster-user-deployments"]["deployments"]
assert code["includeConfigInLaunchedRuns"]["enabled"]
assert values["runLauncher"]["type"] == K8sRunLauncher.__name__
# What the chart hands to the pods of runs, under the names of dagster-k8s.
context = K8sContainerContext.create_from_config({"k8s": {
    "image_pull_policy": values["runLauncher"]["config"]["k8sRunLauncher"]["imagePullPolicy"],
    "env": code["env"],
    "env_secrets": [one["name"] for one in code["envSecrets"]],
    "resources": code["resources"],
}})
image = "{repository}:{tag}".format(**code["image"])
settings = context.get_k8s_job_config(image, SimpleNamespace(
    dagster_home="/opt/dagster/dagster_home", instance_config_map="dagster-instance",
    postgres_password_secret="dagster-postgresql-secret",
))
arguments = ["dagster", "api", "execute_run"]
own = context.run_k8s_config
job = construct_dagster_k8s_job(settings, arguments, "run", user_defined_k8s_config=own)
made = ApiClient().sanitize_for_serialization(job)
schema.validate(made, schema.latest_version(), strict=True)
container = made["spec"]["template"]["spec"]["containers"][0]
assert container["image"] == image, container
assert not made["spec"]["template"]["spec"].get("volumes"), "pods share no volume"
places = {one["name"]: one["value"] for one in container["env"] if "value" in one}
for name in ("RESEARCH_JOBS_STORE", "RESEARCH_JOBS_SHARED_REPORTS"):
    assert places[name].startswith("s3://"), places
print("values.yaml: the job of a run is valid for Kubernetes", schema.latest_version())
"""


def main() -> int:
    """Check both files."""
    if shutil.which("docker-compose") is None:
        get = ["apt-get", "-qq", "install", "--yes", "--no-install-recommends", "docker-compose"]
        subprocess.run(["apt-get", "-qq", "update"], check=True)
        subprocess.run(get, check=True, stdout=subprocess.DEVNULL)
    prepare()
    check_compose(FOLDER / "compose.yaml")
    return subprocess.run([PYTHON, "-c", JOB, FOLDER / "values.yaml"], check=False).returncode


def check_compose(path: Path) -> None:
    """Have docker-compose read the file, with and without the one setting that it needs."""
    command = ["docker-compose", "--file", path, "config", "--quiet"]
    environment = {"PATH": os.environ["PATH"]}
    subprocess.run(command, env=environment | {"RESEARCH_JOBS_PG_PASSWORD": "x"}, check=True)
    refused = subprocess.run(command, env=environment, check=False, capture_output=True)
    assert refused.returncode != 0, "no password is asked for"
    print("compose.yaml: docker-compose reads it")


if __name__ == "__main__":
    sys.exit(main())
