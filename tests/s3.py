"""An S3 server in the test process: moto's, over HTTP on a free port of this computer."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
from botocore.config import Config
from moto.server import ThreadedMotoServer

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "key-of-a-test",
    "AWS_SECRET_ACCESS_KEY": "secret-of-a-test",
    "AWS_REGION": "us-east-1",
}
"""The credentials that the server takes, as it does all others unless ``deny_strangers``."""


@dataclass(frozen=True)
class S3Server:
    """A running server and a client of it."""

    url: str
    client: Any

    def put(self, bucket: str, key: str, data: bytes, **options: str) -> None:
        self.client.put_object(Bucket=bucket, Key=key, Body=data, **options)

    def put_folder(self, bucket: str, key: str, folder: Path) -> None:
        """Copy all files of a folder."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(bucket, f"{key}/{path.relative_to(folder)}", path.read_bytes())

    def deny_strangers(self) -> None:
        """Check credentials from now on; no user has any."""
        httpx.post(f"{self.url}/moto-api/reset-auth", content=b"0").raise_for_status()

    def user(self, *actions: str) -> dict[str, str]:
        """Make a user that may do these alone, such as s3:GetObject; return the user's keys."""
        iam = _client("iam", self.url)
        policy = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [policy]})
        iam.create_user(UserName="user")
        iam.put_user_policy(UserName="user", PolicyName="actions", PolicyDocument=document)
        made = iam.create_access_key(UserName="user")["AccessKey"]
        iam.close()
        return {
            "AWS_ACCESS_KEY_ID": made["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"],
        }

    def reset(self) -> None:
        httpx.post(f"{self.url}/moto-api/reset-auth", content=b"1e9").raise_for_status()
        httpx.post(f"{self.url}/moto-api/reset").raise_for_status()


@contextmanager
def s3_server() -> Iterator[S3Server]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client = _client("s3", url)
    try:
        yield S3Server(url, client)
    finally:
        client.close()
        server.stop()


def _client(service: str, url: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=url,
        region_name=ENVIRONMENT["AWS_REGION"],
        aws_access_key_id=ENVIRONMENT["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
        config=Config(s3={"addressing_style": "path"}),
    )
