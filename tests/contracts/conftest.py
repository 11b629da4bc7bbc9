"""The stores that the contract suites run on: a local folder, memory, and S3 (moto's server on loopback)."""

from __future__ import annotations

import itertools
import os

import pytest

from headrace.store import open_store
from headrace.store.remote import RemoteStore

_numbers = itertools.count()


@pytest.fixture(scope="session")
def s3_bucket():
    """Address of an empty bucket; the environment points boto at a server in this process."""
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            if name in os.environ:
                patch.delenv(name)
        client = boto3.client("s3")
        client.create_bucket(Bucket="loops")
        client.close()
        yield "s3://loops"
    server.stop()


@pytest.fixture(params=["local", "memory", "s3"])
def url(request, tmp_path):
    """Address of a store that nobody has used."""
    if request.param == "local":
        return str(tmp_path / "roots" / "loop")
    if request.param == "memory":
        return f"memory://contract-{next(_numbers)}"
    return f"{request.getfixturevalue('s3_bucket')}/loop-{next(_numbers)}"


@pytest.fixture(scope="session")
def s3_files(s3_bucket):
    """One connection for all tests that need no fresh one: making it costs half a second."""
    fsspec = pytest.importorskip("fsspec")
    return fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)


@pytest.fixture
def store(url, request):
    if url.startswith("s3://"):
        return RemoteStore(url, request.getfixturevalue("s3_files"), url.removeprefix("s3://"))
    return open_store(url)
