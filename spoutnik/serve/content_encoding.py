"""Compressed request bodies: unpacked, but not beyond a limit."""

import zlib
from collections.abc import Callable

import brotli

from spoutnik.serve.errors import ApiError

ACCEPTED = "gzip, deflate, br"
MAX_CODINGS = 3  # of one body: each costs the time of another body


def decode(body: bytes, codings: list[str], max_bytes: int) -> bytes:
    """The body as it was before these codings, as Content-Encoding lists them, were applied in turn.

    Raises:
        ApiError: a coding is unknown, there are too many, the body is damaged, or it is larger than max_bytes.
    """
    if len(codings) > MAX_CODINGS:
        raise ApiError(415, f"Content-Encoding: names {len(codings)} codings; {MAX_CODINGS} at most are undone. Compress "
                       "the body once.", headers={"Accept-Encoding": ACCEPTED})
    for coding in reversed(codings):
        if coding not in DECODERS:
            raise ApiError(415, f"Content-Encoding = {coding!r}: is not read here. Send {ACCEPTED} or none.",
                           headers={"Accept-Encoding": ACCEPTED})
        try:
            unpacked, complete = DECODERS[coding](body, max_bytes + 1)
        except (zlib.error, brotli.error) as error:
            raise ApiError(400, f"Content-Encoding = {coding!r}: the body is not in this form ({error}).") from error
        if len(unpacked) > max_bytes:
            raise ApiError(413, f"the body of a request may have {max_bytes} bytes when it is unpacked.")
        if not complete:
            raise ApiError(400, f"Content-Encoding = {coding!r}: the body ends too early.")
        body = unpacked
    return body


def _gzip(body: bytes, limit: int) -> tuple[bytes, bool]:
    """A body may have several members, one after another."""
    parts, size, complete = [], 0, True
    while body and size < limit:
        part, complete, body = _zlib(body, limit - size, 16 + zlib.MAX_WBITS)
        parts.append(part)
        size += len(part)
    return b"".join(parts), complete


def _deflate(body: bytes, limit: int) -> tuple[bytes, bool]:
    """In zlib's frame, as the standard says, or without one, as some clients send it."""
    try:
        return _zlib(body, limit, zlib.MAX_WBITS)[:2]
    except zlib.error:
        return _zlib(body, limit, -zlib.MAX_WBITS)[:2]


def _zlib(body: bytes, limit: int, window: int) -> tuple[bytes, bool, bytes]:
    decoder = zlib.decompressobj(window)
    return decoder.decompress(body, limit), decoder.eof, decoder.unused_data


def _brotli(body: bytes, limit: int) -> tuple[bytes, bool]:
    decoder = brotli.Decompressor()
    parts = [decoder.process(body, output_buffer_limit=limit)]
    size = len(parts[0])
    while size < limit and not decoder.can_accept_more_data() and not decoder.is_finished():
        parts.append(decoder.process(b"", output_buffer_limit=limit - size))
        size += len(parts[-1])
    return b"".join(parts), decoder.is_finished()


# Each takes a body and a limit; the first bytes of what is in it, up to the limit or little more, and whether it is complete.
DECODERS: dict[str, Callable[[bytes, int], tuple[bytes, bool]]] = {
    "gzip": _gzip, "x-gzip": _gzip, "deflate": _deflate, "br": _brotli}
