"""A channel to a coordinator: in plaintext or over TLS, with a certificate of one's own and a token if it asks for them.

The flags and variables are those of `evocache` and `evocache-worker`.
"""
import os, pathlib
import grpc

LIMIT = 16 << 20


def add_flags(parser):
    env = os.environ.get
    parser.add_argument("--coordinator", default=env("EVOCACHE_COORDINATOR", "http://127.0.0.1:7447"),
                        help="https://HOST:PORT or http://HOST:PORT; without a scheme it is the latter")
    parser.add_argument("--ca", default=env("EVOCACHE_CA"), help="authorities of its certificate (PEM); default: gRPC's own")
    parser.add_argument("--client-cert", default=env("EVOCACHE_CLIENT_CERT"), help="certificate to show to it (PEM)")
    parser.add_argument("--client-key", default=env("EVOCACHE_CLIENT_KEY"), help="private key of that certificate (PEM)")
    parser.add_argument("--token-file", default=env("EVOCACHE_TOKEN_FILE"),
                        help="file with a token; EVOCACHE_TOKEN may hold the token itself")


class Bearer(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Shows the token with each call, over TLS and, where somebody insists, without."""

    def __init__(self, token):
        self.shown = ("authorization", f"Bearer {token}")

    def intercept_unary_unary(self, call, details, request):
        return call(details._replace(metadata=[*(details.metadata or []), self.shown]), request)

    intercept_unary_stream = intercept_unary_unary


def read(path):
    return pathlib.Path(path).read_bytes() if path else None


def connect(args):
    scheme, _, rest = args.coordinator.rpartition("://")
    options = [("grpc.max_receive_message_length", LIMIT), ("grpc.keepalive_time_ms", 20_000)]
    if scheme == "https":
        credentials = grpc.ssl_channel_credentials(read(args.ca), read(args.client_key), read(args.client_cert))
        channel = grpc.secure_channel(rest, credentials, options)
    elif args.ca or args.client_cert:
        raise SystemExit(f"there are certificates for {rest}, which is not encrypted; write it as https://{rest}")
    else:
        channel = grpc.insecure_channel(rest, options)
    token = (read(args.token_file) or os.environ.get("EVOCACHE_TOKEN", "").encode()).decode().strip()
    return grpc.intercept_channel(channel, Bearer(token)) if token else channel
