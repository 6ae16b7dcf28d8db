"""Ports that a service wants."""

import socket

from s2vgan.errors import ServiceError


def require_free_port(port: int, host: str = "127.0.0.1") -> None:
    """Make sure that a service can listen on a port.

    Args:
        port: 1 to 65535.
        host: address that the service will bind.

    Raises:
        ServiceError: if the port is taken, not allowed or no port at all.
    """
    if not 1 <= port <= 65535:
        raise ServiceError(f"port {port}: use 1 to 65535.")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers themselves do
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServiceError(
                f"port {port} on {host} cannot be used ({error.strerror}); end what listens there, "
                f"or choose another with --port, for example --port {port % 65535 + 1}."
            ) from error
