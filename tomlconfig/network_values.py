# SPDX-License-Identifier: Apache-2.0
"""Types of values that name something in the network."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_interface

from tomlconfig.values import Type, Wrong, text_of


def _address(value: object) -> str:
    text = text_of(value)
    if "/" in text:
        raise Wrong("it has a prefix length", "leave out the / and what follows it")
    try:
        address = ip_address(text)
    except ValueError:
        raise Wrong("") from None
    if address.is_unspecified or address.is_multicast:
        raise Wrong("it is not the address of one host")
    return str(address)


def _prefixed_address(value: object) -> object:
    text = text_of(value)
    if "/" not in text:
        raise Wrong("the prefix length is missing", f'write for example "{text}/24"')
    try:
        interface = ip_interface(text)
    except ValueError:
        raise Wrong("") from None
    if interface.is_unspecified or interface.is_multicast:
        raise Wrong("it is not the address of one host")
    network = interface.network
    if network.version == 4 and network.prefixlen < 31:
        if interface.ip == network.network_address:
            raise Wrong("it is the address of the network, not of a host in it")
        if interface.ip == network.broadcast_address:
            raise Wrong("it is the broadcast address of the network")
    return interface


def _interface(value: object) -> str:
    text = text_of(value)
    if len(text.encode()) > 15 or re.search(r"[/\s:]", text) or text in {".", ".."}:
        raise Wrong("")
    return text


def _url(value: object) -> str:
    from urllib.parse import urlsplit

    text = text_of(value)
    try:
        url = urlsplit(text)
        valid = url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
    except ValueError:
        valid = False
    if not valid or re.search(r"\s", text):
        raise Wrong("")
    return text


def host_of(target: str) -> str:
    """The host in a URL or in host:port."""
    from urllib.parse import urlsplit

    return str(urlsplit(target if "//" in target else f"//{target}").hostname)


def _address_url(value: object) -> str:
    from urllib.parse import urlsplit

    text = _url(value)
    url = urlsplit(text)
    if url.scheme != "http":
        raise Wrong("https is not supported here")
    if url.username is not None or url.query or url.fragment:
        raise Wrong("expected nothing but an address, a port and a path")
    _only_address(host_of(text))
    return text


def _address_port(value: object) -> str:
    text = _host_port(value)
    _only_address(host_of(text))
    return text


def _only_address(host: str) -> None:
    try:
        _address(host)
    except Wrong:
        hint = "write its IP address: names are not looked up when the network may be broken"
        raise Wrong(f"{host} is not an IP address", hint) from None


def _host_port(value: object) -> str:
    match = re.fullmatch(
        r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):(\d{1,5})", text_of(value), re.ASCII
    )
    if match is None or not 1 <= int(match[3]) <= 65_535:
        raise Wrong("")
    return match[0]


ADDRESS = Type("IP address", 'the IP address of a host, such as "10.0.0.1"', _address)
PREFIXED_ADDRESS = Type(
    "IP address/prefix", 'an IP address with its prefix, such as "10.0.0.100/24"', _prefixed_address
)
INTERFACE = Type("network interface", 'the name of a network interface, such as "eth0"', _interface)
URL = Type("URL", 'a URL, such as "http://127.0.0.1:8080/health"', _url)
HOST_PORT = Type("host:port", 'a host and a port, such as "127.0.0.1:6379"', _host_port)
ADDRESS_URL = Type("URL with an address", 'a URL, such as "http://10.0.0.9:2379"', _address_url)
ADDRESS_PORT = Type("address:port", 'an address and a port, such as "10.0.0.9:22"', _address_port)
