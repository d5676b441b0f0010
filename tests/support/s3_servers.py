"""A server of S3's protocol, in a process of its own, so that its memory is not the tests'."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_SERVER = """
import logging
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(*server.get_host_and_port(), flush=True)
input()
"""
BUCKET = "tune-tests"


@contextmanager
def s3_server() -> Iterator[str]:
    """Run a server with an empty bucket `BUCKET`; yield its address."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        host, port = process.stdout.readline().split()
        yield f"http://{host}:{port}"
    finally:
        process.kill()
        process.communicate()


def s3_environment(address: str) -> dict[str, str]:
    """Return the variables by which programs reach the server."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "planted-s3-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def make_bucket(patch: pytest.MonkeyPatch, address: str) -> None:
    """Let this process use the server, and make its bucket."""
    import boto3

    for name, value in s3_environment(address).items():
        patch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket=BUCKET)
