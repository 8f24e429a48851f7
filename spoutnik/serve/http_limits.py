"""uvicorn's HTTP/1.1 protocol, with a limit on what it keeps before it hands anything on; it ignores offers of HTTP/2."""

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def limited_protocol(max_pending_bytes: int) -> type[HttpToolsProtocol]:
    """A protocol that refuses endless headers, trailers and chunk extensions: httptools itself would keep all of them.

    Clients may offer another protocol with a request (`Upgrade: h2c`: Java's HttpClient, curl --http2), which a server may
    ignore. httptools takes what follows the headers of an offer for the other protocol, and so would lose the request's body.
    """

    class LimitedProtocol(HttpToolsProtocol):
        _pending = 0  # bytes since something was handed on

        def data_received(self, data: bytes) -> None:
            self._pending += len(data)
            self._unset_keepalive_if_required()
            try:
                self._parse(data)
            except httptools.HttpParserError:
                self.send_400_response("Invalid HTTP request received.")
            if self._pending > max_pending_bytes and not self.transport.is_closing():
                self.send_400_response("The headers have no end.")

        def _parse(self, data: bytes) -> None:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                if self._should_upgrade():
                    self.handle_websocket_upgrade()
                elif self.parser.get_method() == b"CONNECT":
                    self.send_400_response("This is no proxy.")
                else:
                    self._parse(self._request_without_offer() + data[upgrade.args[0]:])

        def _request_without_offer(self) -> bytes:
            """The headers that were just read, for a parser that begins anew."""
            head = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
            head += [b"%b: %b" % header for header in self.headers if header[0] not in (b"upgrade", b"http2-settings")]
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
            return b"\r\n".join(head) + b"\r\n\r\n"

        def on_headers_complete(self) -> None:
            self._pending = 0
            if not self._offers_another_protocol():
                super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._pending = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._pending = 0
            if not self._offers_another_protocol():
                super().on_message_complete()

        def _offers_another_protocol(self) -> bool:
            return self.parser.should_upgrade() and not self._should_upgrade()

    return LimitedProtocol
