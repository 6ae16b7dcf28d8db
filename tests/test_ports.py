import socket

import pytest

from s2vgan.errors import ServiceError
from s2vgan.ports import require_free_port


def test_a_taken_port_is_refused_with_a_way_out() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ServiceError, match=f"port {port} .*--port"):
            require_free_port(port)
    require_free_port(port)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_no_port_at_all(port: int) -> None:
    with pytest.raises(ServiceError, match="1 to 65535"):
        require_free_port(port)
