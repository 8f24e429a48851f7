"""HTTP/1.1 on a connection: uvicorn's fast parser, with a bound on what it keeps before it hands anything on."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def bounded(most: int) -> type[HttpToolsProtocol]:
    """A protocol that cuts off whoever sends more than `most` bytes of headers, trailers or marks of chunks without an end:
    the parser itself would keep all of it."""

    class Bounded(HttpToolsProtocol):
        _unfinished = 0  # bytes since something was handed on

        def data_received(self, data: bytes) -> None:
            self._unfinished += len(data)
            super().data_received(data)
            if self._unfinished > most and not self.transport.is_closing():
                self.send_400_response("The headers have no end.")

        def on_headers_complete(self) -> None:
            self._unfinished = 0
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._unfinished = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._unfinished = 0
            super().on_message_complete()

    return Bounded
