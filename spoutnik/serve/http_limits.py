"""uvicorn's HTTP/1.1 protocol, with a limit on what it keeps before it hands anything on."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def limited_protocol(max_pending_bytes: int) -> type[HttpToolsProtocol]:
    """A protocol that refuses endless headers, trailers and chunk extensions: httptools itself would keep all of them."""

    class LimitedProtocol(HttpToolsProtocol):
        _pending = 0  # bytes since something was handed on

        def data_received(self, data: bytes) -> None:
            self._pending += len(data)
            super().data_received(data)
            if self._pending > max_pending_bytes and not self.transport.is_closing():
                self.send_400_response("The headers have no end.")

        def on_headers_complete(self) -> None:
            self._pending = 0
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._pending = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._pending = 0
            super().on_message_complete()

    return LimitedProtocol
