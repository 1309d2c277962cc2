"""A channel to a coordinator: plain or over TLS, with a certificate of one's own and a token if it asks for them. The
flags and variables are those of `evocache` and `evocache-worker`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import grpc

from ._version import PROTOCOL_VERSION, __version__
from .errors import CoordinatorError, shown

DEFAULT = "http://127.0.0.1:7447"
LIMIT = 16 << 20
_T = TypeVar("_T")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The options about a coordinator."""
    env = os.environ.get
    parser.add_argument(
        "--coordinator",
        default=env("EVOCACHE_COORDINATOR", DEFAULT),
        help="https://HOST:PORT or http://HOST:PORT; without a scheme it is the latter",
    )
    parser.add_argument("--ca", default=env("EVOCACHE_CA"), help="authorities of its certificate (PEM)")
    parser.add_argument("--client-cert", default=env("EVOCACHE_CLIENT_CERT"), help="certificate to show to it (PEM)")
    parser.add_argument(
        "--client-key", default=env("EVOCACHE_CLIENT_KEY"), help="private key of that certificate (PEM)"
    )
    parser.add_argument(
        "--token-file",
        default=env("EVOCACHE_TOKEN_FILE"),
        help="file with a token; EVOCACHE_TOKEN may hold the token itself",
    )


def options(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `connect` that these flags give."""
    return {name: getattr(args, name) for name in ("ca", "client_cert", "client_key", "token_file")}


class _Bearer(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Shows the token with each call, over TLS and, where somebody insists, without."""

    def __init__(self, token: str) -> None:
        self._shown = ("authorization", f"Bearer {token}")

    def _with_token(self, call: Any, details: Any, request: Any) -> Any:
        return call(details._replace(metadata=[*(details.metadata or []), self._shown]), request)

    intercept_unary_unary = _with_token  # type: ignore[assignment]
    intercept_unary_stream = _with_token  # type: ignore[assignment]


def _read(path: str | None) -> bytes | None:
    try:
        return Path(path).read_bytes() if path else None
    except OSError as error:
        raise CoordinatorError(f"cannot read '{path}': {error.strerror}") from error


def connect(
    coordinator: str = DEFAULT,
    *,
    ca: str | None = None,
    client_cert: str | None = None,
    client_key: str | None = None,
    token: str | None = None,
    token_file: str | None = None,
) -> grpc.Channel:
    """A channel. It is not connected yet; see `check`."""
    scheme, _, address = coordinator.rpartition("://")
    if scheme not in ("", "http", "https"):
        raise CoordinatorError(f"'{shown(coordinator)}' is not an address; write http://HOST:PORT or https://HOST:PORT")
    settings: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", LIMIT),
        ("grpc.keepalive_time_ms", 20_000),
    ]
    settings.append(("grpc.primary_user_agent", f"evocache-python/{__version__}"))
    if scheme == "https":
        credentials = grpc.ssl_channel_credentials(_read(ca), _read(client_key), _read(client_cert))
        channel = grpc.secure_channel(address, credentials, settings)
    elif ca or client_cert:
        raise CoordinatorError(f"there are certificates for {address}, which is not encrypted; write https://{address}")
    else:
        channel = grpc.insecure_channel(address, settings)
    secret = token or (_read(token_file) or b"").decode().strip() or os.environ.get("EVOCACHE_TOKEN", "").strip()
    return grpc.intercept_channel(channel, _Bearer(secret)) if secret else channel


def check(channel: grpc.Channel, coordinator: str, timeout: float) -> None:
    """Fails unless a coordinator that speaks this protocol answers there. Reads a list, which needs no more than the
    least role; a refusal for want of a role or a token comes from a coordinator too, and later calls tell of it."""
    from .v1 import search_service_pb2 as pb
    from .v1.search_service_pb2_grpc import SearchServiceStub

    try:
        SearchServiceStub(channel).ListSearches(pb.ListSearchesRequest(page_size=1), timeout=timeout)
    except grpc.RpcError as error:
        code = error.code()
        if code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED):
            return
        if code == grpc.StatusCode.UNIMPLEMENTED:
            raise CoordinatorError(
                f"{coordinator} is no coordinator that speaks evocache.v1 (this is evocache {__version__} for Python, "
                f"protocol {PROTOCOL_VERSION}): update the older of the two",
                code.name,
            ) from error
        raise told(error, coordinator) from error


def told(error: grpc.RpcError, coordinator: str) -> CoordinatorError:
    """The error of a call as one of this package, with the coordinator's reason and what its metadata say."""
    from google.rpc.error_details_pb2 import ErrorInfo
    from grpc_status import rpc_status

    code, text = error.code().name, shown(error.details() or "", 2000)
    reason, metadata = "", {}
    try:
        status = rpc_status.from_call(error)
    except ValueError:
        status = None
    for detail in status.details if status is not None else ():
        info = ErrorInfo()
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
    if code == "UNAVAILABLE" and not reason:
        text = f"no coordinator answers at {coordinator}: {text}"
    nearest = _nearest(metadata) if reason == "NO_SCHEDULE" else ""
    return CoordinatorError(f"{text}{nearest}", code, reason)


def _nearest(metadata: Mapping[str, str]) -> str:
    if not metadata.get("nearest_candidate"):
        return ""
    found = {
        name: shown(metadata.get(name, "?")) for name in ("nearest_candidate", "missed", "nearest_value", "wanted")
    }
    return "; the nearest is candidate {nearest_candidate} with {missed} {nearest_value}, wanted {wanted}".format(
        **found
    )


def call(method: Callable[..., _T], request: Any, coordinator: str, timeout: float | None) -> _T:
    """Calls and translates the error."""
    try:
        return method(request, timeout=timeout)
    except grpc.RpcError as error:
        raise told(error, coordinator) from error
