"""A line to the server that breaks at chosen moments: the server has the request, the client never sees the answer."""

import contextlib
import select
import socket
import threading
from typing import Iterator, List


class BrokenLine:
    """Forwards connections to a port. Connection number n loses its `losses[n]`-th answer and is cut with it; later
    connections are whole."""

    def __init__(self, port: int, losses: List[int]):
        self._target = port
        self._losses = losses
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.connections = 0
        self.cuts = 0

    def serve(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            loss = self._losses[self.connections] if self.connections < len(self._losses) else None
            self.connections += 1
            threading.Thread(target=self._forward, args=(near, loss), daemon=True).start()

    def _forward(self, near: socket.socket, loss) -> None:
        answers = 0
        with near, socket.create_connection(("127.0.0.1", self._target)) as far:
            while True:
                for ready in select.select([near, far], [], [])[0]:
                    try:
                        data = ready.recv(1 << 16)
                    except OSError:
                        return
                    if not data:
                        return
                    if ready is far:
                        answers += 1
                        if answers == loss:
                            self.cuts += 1
                            return
                    try:
                        (far if ready is near else near).sendall(data)
                    except OSError:
                        return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextlib.contextmanager
def broken_line(port: int, losses: List[int]) -> Iterator[BrokenLine]:
    line = BrokenLine(port, losses)
    threading.Thread(target=line.serve, daemon=True).start()
    try:
        yield line
    finally:
        line.close()
