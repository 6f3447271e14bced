"""Ways to a provider: through proxies, under other authorities, to where a name leads by now.  On real sockets."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme

from gateway import settings
from gateway.credentials import certificates
from gateway.dialects.base import Call
from gateway.errors import UpstreamFailure, UpstreamUnreachable
from gateway.provider import ENVIRONMENT, Provider, Timeouts, Tls
from gateway.settings import SettingsError
from gateway.transport import http1
from gateway.transport.http1 import Pool
from gateway.upstream import real_transport

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GRANTED = b"HTTP/1.1 200 Connection established\r\n\r\n"
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, *(name.upper() for name in VARIABLES)):
        monkeypatch.delenv(name, raising=False)


@dataclass
class Origin:
    """A provider that says ok, and keeps what it was told."""

    port: int = 0
    heads: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                await reader.readexactly(2)
                writer.write(OK)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.transport.abort()


@asynccontextmanager
async def origin(tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Origin]:
    found = Origin()
    async with await asyncio.start_server(found.serve, host, port, ssl=tls) as server:
        found.port = server.sockets[0].getsockname()[1]
        yield found


@dataclass
class Proxy:
    """An HTTP proxy; with `says` it says that and connects to nothing."""

    says: bytes | None = None
    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    closers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.closers.append(writer)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            if self.says is not None:
                writer.write(self.says)
                await reader.read()
                return
            host, _, port = head.split(b" ")[1].decode().rpartition(":")
            there, to = await asyncio.open_connection(host, int(port))
            self.closers.append(to)
            writer.write(GRANTED)
            await asyncio.gather(_poured(reader, to), _poured(there, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for each in self.closers:
                each.transport.abort()


async def _poured(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.transport.abort()


@asynccontextmanager
async def proxy(says: bytes | None = None) -> AsyncIterator[Proxy]:
    found = Proxy(says)
    async with await asyncio.start_server(found.serve, "127.0.0.1", 0) as server:
        found.port = server.sockets[0].getsockname()[1]
        yield found


@asynccontextmanager
async def pool(whom: Provider, **options: Any) -> AsyncIterator[Pool]:
    made = Pool(whom, certificates.context(whom.tls), **options)
    yield made
    await made.close()
    await asyncio.sleep(0)


def provider(port: int, *, scheme: str = "http", connect_s: float = 5.0, **fields: Any) -> Provider:
    address = f"{scheme}://localhost:{port}/v1"
    return Provider("p", "openai", address, timeouts=Timeouts(connect_s=connect_s), **fields)


async def ask(ways: Pool, whom: Provider, sent: list[None] | None = None) -> bytes:
    call = Call(f"{whom.base_url}/chat/completions", b"{}", {"authorization": "Bearer of-the-provider"})
    told = [] if sent is None else sent
    async with await ways.send(call, lambda: told.append(None)) as answer:
        return b"".join([chunk async for chunk in answer.chunks()])


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    made.issue_cert("us@example.com").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "us.pem"))
    return made


def theirs(authority: trustme.CA, *, asks: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    if asks:
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


# Proxies


async def test_a_proxy_sees_where_we_go_and_not_what_we_say_and_its_password_goes_no_further(
    authority: trustme.CA, tmp_path: Path
) -> None:
    async with origin(theirs(authority)) as there, proxy() as between:
        address = f"http://me:pass%40word@127.0.0.1:{between.port}"
        whom = provider(there.port, scheme="https", proxy=address, tls=Tls(str(tmp_path / "ca.pem")))
        async with pool(whom) as ways:
            assert [await ask(ways, whom) for _ in range(2)] == [b"ok", b"ok"]
        (told,) = between.heads
    assert told.startswith(f"CONNECT localhost:{there.port} HTTP/1.1\r\n".encode())
    assert b"proxy-authorization: Basic " + base64.b64encode(b"me:pass@word") in told
    assert b"of-the-provider" not in told
    assert len(there.heads) == 2
    assert b"proxy" not in b"".join(there.heads).lower()
    assert "word" not in repr(whom)


async def test_a_certificate_is_verified_behind_a_proxy_too(authority: trustme.CA) -> None:
    async with origin(theirs(authority)) as there, proxy() as between:
        whom = provider(there.port, scheme="https", proxy=f"http://127.0.0.1:{between.port}")
        async with pool(whom) as ways:
            with pytest.raises(UpstreamUnreachable):
                await ask(ways, whom)
    assert not there.heads


@pytest.mark.parametrize(
    "says",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 3\r\n\r\nno!",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        GRANTED + b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000,
        b"",
    ],
    ids=["wants a password", "refuses", "is none", "says more", "never ends", "is silent"],
)
async def test_a_proxy_that_does_not_connect_us_is_not_gone_around(says: bytes) -> None:
    sent: list[None] = []
    async with origin() as there, proxy(says) as between:
        whom = provider(there.port, proxy=f"http://127.0.0.1:{between.port}", connect_s=0.5)
        async with pool(whom) as ways:
            with pytest.raises(UpstreamUnreachable):
                await ask(ways, whom, sent)
            assert ways._open == 0
    assert not there.heads
    assert not sent


@pytest.mark.parametrize(
    ("variables", "through"),
    [
        ({"HTTP_PROXY": "http://127.0.0.1:{port}"}, True),
        ({"ALL_PROXY": "127.0.0.1:{port}"}, True),
        ({"HTTPS_PROXY": "http://127.0.0.1:{port}"}, False),  # for the other scheme
        ({"HTTP_PROXY": "http://127.0.0.1:{port}", "NO_PROXY": "example.com, localhost"}, False),
        ({"HTTP_PROXY": "http://127.0.0.1:{port}", "NO_PROXY": "*"}, False),
        ({}, False),
    ],
)
async def test_the_environments_proxy_is_used_where_settings_say_so(
    variables: dict[str, str], *, through: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with origin() as there, proxy() as between:
        for name, value in variables.items():
            monkeypatch.setenv(name, value.format(port=between.port))
        for setting, expected in ((ENVIRONMENT, through), ("", False)):
            between.heads.clear()
            whom = provider(there.port, proxy=setting)
            async with pool(whom) as ways:
                assert await ask(ways, whom) == b"ok"
            assert bool(between.heads) is expected


async def test_a_proxy_of_a_kind_we_do_not_speak_is_not_gone_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:1")
    async with origin() as there:
        whom = provider(there.port, proxy=ENVIRONMENT)
        async with pool(whom) as ways:
            with pytest.raises(UpstreamUnreachable):
                await ask(ways, whom)
    assert not there.heads


# Certificates


@pytest.mark.parametrize("ours", [True, False])
async def test_an_authority_of_ones_own_is_believed_and_only_where_settings_say_so(
    authority: trustme.CA, tmp_path: Path, *, ours: bool
) -> None:
    async with origin(theirs(authority)) as there:
        whom = provider(there.port, scheme="https", tls=Tls(str(tmp_path / "ca.pem")) if ours else Tls())
        async with pool(whom) as ways:
            if ours:
                assert await ask(ways, whom) == b"ok"
            else:
                with pytest.raises(UpstreamUnreachable):
                    await ask(ways, whom)
    assert len(there.heads) == ours


async def test_an_authority_of_ones_own_takes_the_place_of_the_systems(tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "one.pem"))
    assert len(certificates.context(Tls(str(tmp_path / "one.pem"))).get_ca_certs()) == 1


@pytest.mark.parametrize("shown", [True, False])
async def test_a_provider_that_asks_who_we_are_is_shown_our_certificate(
    authority: trustme.CA, tmp_path: Path, *, shown: bool
) -> None:
    async with origin(theirs(authority, asks=True)) as there:
        tls = Tls(str(tmp_path / "ca.pem"), str(tmp_path / "us.pem") if shown else "")
        whom = provider(there.port, scheme="https", tls=tls)
        async with pool(whom) as ways:
            if shown:
                assert await ask(ways, whom) == b"ok"
            else:
                with pytest.raises(UpstreamFailure):
                    await ask(ways, whom)
    assert len(there.heads) == shown


@pytest.mark.parametrize("files", [(), ("ca.pem",), ("", "us.pem"), ("ca.pem", "us.pem")])
@pytest.mark.usefixtures("authority")
async def test_certificates_and_names_are_verified_whatever_the_settings(tmp_path: Path, files: Sequence[str]) -> None:
    tls = Tls(*(str(tmp_path / file) if file else "" for file in files))
    transport = real_transport(provider(1, scheme="https", tls=tls))
    assert isinstance(transport, Pool)
    assert transport._tls.verify_mode is ssl.CERT_REQUIRED
    assert transport._tls.check_hostname


CONFIG = "providers: {{p: {{dialect: openai, base_url: 'https://api.example.com/v1', {more}}}}}"


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("tls: {verify: false}", "providers.p.tls.verify: unknown key"),
        ("tls: {ca_file: /no/such/file}", "providers.p.tls: cannot be used"),
        ("tls: {ca_file: FOLDER/none.pem}", "providers.p.tls: cannot be used"),
        ("tls: {cert_file: FOLDER/ca.pem}", "providers.p.tls: cannot be used"),
        ("tls: {key_file: FOLDER/us.pem}", "providers.p.tls.key_file: needs the cert_file"),
        ("proxy: 'socks5://hidden-word:1'", "providers.p.proxy: must be environment, or"),
        ("proxy: 'https://me:hidden-word@proxy:1'", "providers.p.proxy: must be environment, or"),
        ("connection_age_max_s: 0", "providers.p.connection_age_max_s: must be greater than 0"),
    ],
)
@pytest.mark.usefixtures("authority")
def test_a_mistake_in_a_way_is_named_with_its_place(tmp_path: Path, more: str, problem: str) -> None:
    (tmp_path / "none.pem").write_text("no certificate")
    with pytest.raises(SettingsError) as wrong:
        settings.parse(CONFIG.format(more=more.replace("FOLDER", str(tmp_path))), {})
    assert problem in str(wrong.value)
    assert "hidden-word" not in str(wrong.value)


# Names


async def test_a_connection_grown_old_is_replaced_by_one_to_where_the_name_leads_by_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http1, "NAMES_S", 0.0)
    address = "127.0.0.1"

    async def resolve(host: str, port: int) -> Any:
        assert host == "localhost"
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))]

    async with origin() as old, origin(host="127.0.0.2", port=old.port) as new:
        young = provider(old.port, connection_age_max_s=3600.0)
        aged = provider(old.port, connection_age_max_s=1e-9)
        async with pool(young, resolve=resolve) as kept, pool(aged, resolve=resolve) as replaced:
            for ways, whom in ((kept, young), (replaced, aged)):
                await ask(ways, whom)
            address = "127.0.0.2"
            for ways, whom in ((kept, young), (replaced, aged)):
                await ask(ways, whom)
    assert (len(old.heads), len(new.heads)) == (3, 1)


async def test_a_name_that_led_nowhere_is_asked_for_again_at_once() -> None:
    asked = []

    async def resolve(host: str, port: int) -> Any:
        asked.append(host)
        free = "127.0.0.1" if len(asked) > 1 else "127.0.0.3"
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (free, port))]

    async with origin() as there:
        whom = provider(there.port)
        async with pool(whom, resolve=resolve) as ways:
            with pytest.raises(UpstreamUnreachable):
                await ask(ways, whom)
            assert await ask(ways, whom) == b"ok"
    assert asked == ["localhost", "localhost"]
