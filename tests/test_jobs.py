"""The files of experiments/jobs/ say what the schedulers and the scripts understand."""

import importlib
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from s2sjax.errors import AGAIN, REFUSED

ROOT = Path(__file__).parents[1]
JOBS = ROOT / "experiments" / "jobs"
SHELL = sorted([*JOBS.glob("*.sbatch"), *JOBS.glob("*.sh"), ROOT / ".ci" / "run"])


def manifest(name):
    return yaml.safe_load((JOBS / f"{name}.yaml").read_text(encoding="utf-8"))


def rules(job):
    """What happens to a pod by its exit code or condition: action, the code or the condition."""
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # or Kubernetes refuses such rules
    (container,) = job["template"]["spec"]["containers"]
    found = []
    for rule in job["podFailurePolicy"]["rules"]:
        if codes := rule.get("onExitCodes"):
            assert (codes["containerName"], codes["operator"]) == (container["name"], "In")
            found += [(rule["action"], code) for code in codes["values"]]
        else:
            found += [(rule["action"], c["type"]) for c in rule["onPodConditions"]]
    return found


def command(job, folder, **environment):
    """What Python is told in a pod; it replaces the shell, so that signals reach it."""
    shell = job["template"]["spec"]["containers"][0]["command"]
    assert shell[:2] == ["sh", "-c"]
    assert shell[2].startswith("exec python ")
    (folder / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (folder / "python").chmod(0o755)
    environment["PATH"] = f"{folder}:{os.environ['PATH']}"
    shown = subprocess.run(shell, env=environment, capture_output=True, text=True, check=True)
    return shown.stdout.splitlines()


def test_there_are_shell_files():
    assert len(SHELL) == 5


@pytest.mark.parametrize("path", SHELL, ids=lambda path: path.name)
def test_shell_files_are_well_formed(path):
    subprocess.run(["bash", "-n", path], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", path], check=True)


def test_an_indexed_job_tries_again_what_was_stopped_and_never_what_is_wrong(tmp_path):
    job = manifest("kubernetes-sweep")
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed"  # or there is no limit for each index
    assert spec["backoffLimitPerIndex"] > 0
    assert "backoffLimit" not in spec  # it would end all for one
    ignored = [("Ignore", AGAIN), ("Ignore", "DisruptionTarget")]
    assert rules(spec) == [("FailIndex", REFUSED), *ignored]
    (tmp_path / "kubernetes.txt").write_text("a=1,b=2+1\na=2,b=2+1\n")
    told = command(spec, tmp_path, SWEEP=str(tmp_path), JOB_COMPLETION_INDEX="1")
    assert told == ["experiments/sweep.py", "work", str(tmp_path), "a=2,b=2+1"]


def test_the_pods_of_a_jobset_are_the_processes_of_one_run(tmp_path):
    jobset = manifest("kubernetes-distributed")
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (rule,) = jobset["spec"]["failurePolicy"]["rules"]
    assert re.fullmatch("[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    (replicated,) = jobset["spec"]["replicatedJobs"]
    spec = replicated["template"]["spec"]
    assert rules(spec) == [("FailJob", REFUSED)]  # the only reason that JobSet's rule is about
    assert spec["backoffLimit"] == 0
    script, preset, *options = command(spec, tmp_path, JOB_COMPLETION_INDEX="1")
    option = dict(zip(options[::2], options[1::2], strict=True))
    assert spec["completions"] == spec["parallelism"] == int(option["--processes"])
    assert option["--process-id"] == "1"
    names = jobset["metadata"]["name"], replicated["name"]
    (port,) = spec["template"]["spec"]["containers"][0]["ports"]
    address = f"{'-'.join(names)}-0-0.{names[0]}:{port['containerPort']}"
    assert option["--coordinator"] == address
    assert preset in importlib.import_module(Path(script).stem).PRESETS


@pytest.mark.parametrize("name", ["kubernetes-sweep", "kubernetes-distributed"])
def test_pods_have_what_they_need(name):
    spec = manifest(name)["spec"]
    spec = spec if "template" in spec else spec["replicatedJobs"][0]["template"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    (volume,), (mount,) = pod["volumes"], container["volumeMounts"]
    assert volume["name"] == mount["name"]
    assert volume["persistentVolumeClaim"]["claimName"]
    assert mount["mountPath"] == "/runs"
    assert pod["terminationGracePeriodSeconds"] >= 30
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert container["image"] == f"s2sjax:{project['version']}"


def test_the_image_copies_what_is_there_and_checks_hashes():
    lines = (JOBS / "Containerfile").read_text(encoding="utf-8").splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert copied
    assert all((ROOT / name).exists() for name in copied)
    installs = [line for line in lines if line.startswith("RUN pip install")]
    assert ["--require-hashes" in line or "--no-deps" in line for line in installs] == [True, True]
