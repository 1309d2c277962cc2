"""The version of the package, which is that of the repository."""

__version__ = "0.1.0"

#: The version of the worker protocol and of the messages that this package speaks.
PROTOCOL_VERSION = 1
