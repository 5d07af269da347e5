# SPDX-License-Identifier: Apache-2.0
"""Does a URL answer, with what it should, behind a certificate that lasts?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from haoperator.checkers.conversation import Conversation, reason
from haoperator.checkers.promise import Answer

if TYPE_CHECKING:
    import ssl

_HEAD_BYTES = 2000
_BODY_BYTES = 1 << 20
_DIGITS = ((0, 4), (4, 6), (6, 8), (8, 10), (10, 12), (12, 14))
"""Of a GeneralizedTime: year, month, day, hour, minute, second."""


def http(
    target: str,
    timeout: float,
    *,
    status: str = "",
    body: str = "",
    check_certificate: str = "",
    certificate_left: str = "",
) -> Answer:
    """A status from 200 to 399, or `status`, and `body` in the first megabyte of the answer.
    Redirections are not followed.

    The certificate of https is not checked unless `check_certificate` is set, as in Kubernetes:
    the question is whether the application serves, and not who it is. It is still looked at for
    how many seconds it lasts, `certificate_left` at least.
    """
    from urllib.parse import urlsplit

    url = urlsplit(target)
    secure = url.scheme == "https"
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {url.netloc.rpartition('@')[2]}\r\n"
        "User-Agent: haoperator\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    host = url.hostname or ""
    try:
        with Conversation(host, url.port or (443 if secure else 80), timeout) as talk:
            if secure:
                certificate = talk.encrypt(_context(bool(check_certificate)), host)
                if certificate_left and (short := _too_short(certificate, float(certificate_left))):
                    return Answer(False, f"{target}: {short}")
            talk.say(request.encode())
            answer = talk.hear_until(lambda data: b"\n" in data, _HEAD_BYTES)
            if body and body.encode() not in answer:
                answer += talk.hear_until(lambda data: body.encode() in data, _BODY_BYTES)
    except (OSError, ValueError) as err:
        return Answer(False, f"{target}: {reason(err, timeout)}")
    found = _status(answer)
    if not found:
        return Answer(False, f"{target}: no HTTP answer")
    right = found == int(status) if status else 200 <= found < 400
    if not right:
        return Answer(False, f"{target} answers {found}" + (f", not {status}" if status else ""))
    if body and body.encode() not in _body(answer):
        return Answer(False, f'{target} answers {found}, without "{body}"')
    return Answer(True, f"{target} answers {found}")


def _status(answer: bytes) -> int:
    """0 if it is no HTTP."""
    words = answer.split(b"\n", 1)[0].split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return 0
    return int(words[1])


def _body(answer: bytes) -> bytes:
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head.lower():
        return body
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        try:
            length = int(size.split(b";")[0], 16)
        except ValueError:
            break
        whole, body = whole + body[:length], body[length + 2 :]
    return whole


def _context(check: bool) -> ssl.SSLContext:
    import ssl

    if check:
        return ssl.create_default_context()
    # Without the certificates that this node trusts, which take time and memory to read.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _too_short(certificate: bytes, least: float) -> str:
    """How long the certificate lasts, if that is less than `least` seconds."""
    left = not_after(certificate) - time.time()
    if left >= least:
        return ""
    days = f"in {left / 86_400:.0f} days" if left > 0 else "already"
    return f"its certificate ends {days}"


def not_after(certificate: bytes) -> float:
    """The end of a certificate in DER (RFC 5280, 4.1), as seconds since 1970.

    The ssl module tells it of certificates alone that it has verified. Raises ValueError.
    """
    import calendar

    fields = _inside(_inside(certificate))  # tbsCertificate
    if fields[:1] == b"\xa0":  # version
        fields = _behind(fields)
    for _ in ("serialNumber", "signature", "issuer"):
        fields = _behind(fields)
    until = _behind(_inside(fields))  # validity: notBefore, notAfter
    text = _inside(until).decode("ascii")
    if until[:1] == b"\x17":  # UTCTime, of two digits for the year
        text = ("19" if text >= "50" else "20") + text
    year, *rest = (int(text[start:end]) for start, end in _DIGITS)
    return calendar.timegm((year, *rest))


def _bounds(der: bytes) -> tuple[int, int]:
    """Where the content of the first element begins and ends."""
    if len(der) < 2:
        raise ValueError("its certificate cannot be read")
    size, start = der[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(der[2:start], "big")
    if start + size > len(der):
        raise ValueError("its certificate cannot be read")
    return start, start + size


def _inside(der: bytes) -> bytes:
    start, end = _bounds(der)
    return der[start:end]


def _behind(der: bytes) -> bytes:
    return der[_bounds(der)[1] :]
