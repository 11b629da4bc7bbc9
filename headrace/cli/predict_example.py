"""One Predict call written three times: for the Python client, grpcurl and curl."""

from __future__ import annotations

import base64
import json
import shlex
import struct
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from headrace.errors import SourceVanished

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.config import Settings

__all__ = ["example", "first_request"]

METHOD = "headrace.v1.HeadraceService/Predict"


def first_request(settings: Settings) -> dict[str, Any]:
    """The features of the first good event of the source. SourceVanished where there is none."""
    from headrace.cli.sources import parsed

    names = [feature.name for feature in settings.schema().features if feature.kind != "cross"]
    lists = {feature.name for feature in settings.schema().features if feature.kind == "ids"}
    for _, found in parsed(settings, "impression", rows=1):
        for events in found.events:
            values = events.slice(0, 1).select(names).to_pylist()[0]
            return {name: [_list(value)] if name in lists else _plain(value) for name, value in values.items()}
    raise SourceVanished(
        f"{settings.impression.source} has no event that could be an example",
        hint="give features: `headrace predict --example user=u1 …`",
    )


def example(request: Mapping[str, Any], address: str) -> str:
    """The three calls, with what they need."""
    from google.protobuf.json_format import MessageToDict

    from paramserver.client import values_of
    from protos import headrace_pb2 as wire

    message = wire.PredictRequest(features={name: values_of(name, value) for name, value in request.items()})
    data = message.SerializeToString(deterministic=True)
    framed = base64.b64encode(b"\0" + struct.pack(">I", len(data)) + data).decode()
    features = "\n".join(f"        {json.dumps(name)}: {value!r}," for name, value in request.items())
    text = json.dumps(MessageToDict(message, preserving_proto_field_name=True), ensure_ascii=False)
    return f"""\
# Python; several candidates: a list of n values for what differs between them
from paramserver.client import Client

with Client({json.dumps(address)}) as client:
    answer = client.predict({{
{features}
    }})
    print(answer.scores, answer.version, answer.age_s)

# grpcurl; the server describes its API by reflection
grpcurl -plaintext -d {shlex.quote(text)} {address} {METHOD}

# curl; five bytes (0, length), then a PredictResponse of protos/headrace.proto
echo {framed} | base64 -d | curl -s --http2-prior-knowledge \\
    -H 'content-type: application/grpc' -H 'te: trailers' --data-binary @- \\
    http://{address}/{METHOD} -o answer.bin
"""


def _list(values: list[Any] | None) -> list[Any]:
    """Without what is missing in it, which a request cannot say."""
    return [value for value in values or [] if value is not None]


def _plain(value: Any) -> Any:
    """A time as the text that a request takes, a decimal as a number."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value.isoformat() if hasattr(value, "isoformat") else value
