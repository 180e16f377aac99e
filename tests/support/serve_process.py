"""`shadowsim serve` as a process of its own, and boto3 clients that find it."""

import subprocess
import sys
from contextlib import contextmanager

import boto3


def started(tmp_path, *options):
    """Start `shadowsim serve` as a process; return it, the variables that it prints, and all lines up to there."""
    code = "from shadowsim.cli.main import app; app()"
    command = [sys.executable, "-c", code, "serve", "--port", "0", "--s3-root", str(tmp_path / "s3"), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip())
        if line.startswith("#"):
            break
    variables = dict(line.removeprefix("export ").split("=", 1) for line in lines if "export" in line)
    return process, variables, lines


@contextmanager
def process_of(tmp_path, monkeypatch, *options):
    """Run a server in its own process, with boto3 clients that find it by the variables that it prints."""
    process, variables, lines = started(tmp_path, *options)
    keys = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1"}
    keys["AWS_MAX_ATTEMPTS"] = "1"  # a server that has ended is not asked again
    for name, value in {**variables, **keys}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it may have read other keys
    try:
        yield process, boto3.client("sagemaker"), boto3.client("sagemaker-runtime"), lines
    finally:
        process.kill()
        process.communicate()
