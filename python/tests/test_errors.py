"""Bad input, bad places, bad moments: each a typed exception with a sentence that helps."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from stage import CHANNEL, run

from skytale import (
    Agent,
    Damaged,
    Denied,
    Misuse,
    PeerMisbehaved,
    SkytaleError,
    Timeout,
    Unreachable,
    WrongType,
    errors,
)
from skytale.testing import mesh

KEY = "01" * 32
NOBODY = f"{KEY}@127.0.0.1:9?grpc=off"


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which nothing is configured."""
    for name in ("API_KEY", "API_URL", "RELAY", "DATA_DIR", "CONTEXT", "VAULT_KEY", "TRAFFIC"):
        monkeypatch.delenv(f"SKYTALE_{name}", raising=False)
    monkeypatch.setenv("SKYTALE_CONFIG_DIR", str(tmp_path / "config"))
    return tmp_path / "data"


async def refused(call: Callable[[], Awaitable[Any]], code: str, hint: str) -> SkytaleError:
    with pytest.raises(SkytaleError) as caught:
        await call()
    error = caught.value
    assert error.code == code, error
    assert hint in str(error), error
    return error


@contextmanager
def answering(status: int, answer: bytes) -> Iterator[str]:
    """Where an API server might be, somebody else who answers everything like this."""

    class Somebody(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Somebody) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def problem(code: str, retry_after_s: int) -> bytes:
    """A refusal as the API server writes it."""
    about = {"type": "about:blank", "title": "", "status": 0, "detail": "no", "request_id": ""}
    return json.dumps({**about, "code": code, "retry_after_s": retry_after_s}).encode()


def test_wrong_types_are_named_before_anything_is_sent() -> None:
    async def story() -> None:
        async with mesh("alice") as (alice,):
            plan = await alice.channel(CHANNEL)
            me = alice.id
            calls: list[tuple[Callable[[], Awaitable[Any]], str]] = [
                (lambda: plan.send(7), "str or bytes, not int"),  # type: ignore[arg-type]
                (lambda: plan.send(None), "str or bytes, not None"),  # type: ignore[arg-type]
                (lambda: plan.send("a", content_type=1), "content_type"),  # type: ignore[arg-type]
                (lambda: plan.ask("a", timeout="1"), "number of seconds"),  # type: ignore[arg-type]
                (lambda: plan.receive(timeout=True), "number of seconds"),
                (lambda: plan.invite(uses=1.5), "uses is an int"),  # type: ignore[arg-type]
                (lambda: plan.add(3), "by their ids"),  # type: ignore[arg-type]
                (lambda: plan.grant(me, admin="no", may_invite=True), "admin is True or False"),  # type: ignore[arg-type]
                (lambda: plan.grant(me, admin=True, may_invite=0), "may_invite is True or False"),  # type: ignore[arg-type]
                (lambda: alice.channel(b"a/b/c"), "a str, not bytes"),  # type: ignore[arg-type]
                (lambda: alice.join(None), "a str, not NoneType"),  # type: ignore[arg-type]
            ]
            for call, hint in calls:
                error = await refused(call, "misuse", hint)
                assert isinstance(error, WrongType) and isinstance(error, TypeError)
            assert (await plan.send("first")).seq >= 1
            assert [view.outbox for view in await alice.channels()] == [0]

    run(story())


def test_values_that_cannot_be_meant() -> None:
    async def story() -> None:
        async with mesh("alice") as (alice,):
            plan = await alice.channel(CHANNEL)
            await refused(lambda: plan.send("\ud800"), "misuse", "UTF-8")
            await refused(lambda: plan.send(b"x" * 262_145), "misuse", "262144")
            await refused(lambda: plan.send("a", reply_to="7"), "misuse", "hexadecimal")
            await refused(lambda: plan.invite(uses=0), "misuse", "from 1")
            await refused(lambda: plan.invite(ttl=-1), "misuse", "from 0")
            await refused(lambda: plan.ask("a", timeout=float("nan")), "misuse", "from 0")
            await refused(lambda: plan.add("bob"), "misuse", "agt_")
            await refused(lambda: plan.remove([]), "misuse", "no agent")
            await refused(lambda: alice.channel("acme/ops"), "misuse", "like acme/ops/plan")
            await refused(lambda: alice.join("hello"), "misuse", "begins with skt_inv_")
            await refused(lambda: alice.join("skt_inv_AAAA"), "invite_altered", "copy it again")
            await plan.send(b"x" * 262_144)

    run(story())


def test_channels_and_agents_that_are_not_there() -> None:
    async def story() -> None:
        async with mesh("alice", "bob") as (alice, bob):
            plan = await alice.channel(CHANNEL)
            error = await refused(lambda: alice.accept("acme/ops/none"), "not_found", "offered")
            assert isinstance(error, Misuse)
            for unknown in ("acme/ops/none", CHANNEL):
                call = partial(alice.decline, unknown)
                await refused(call, "not_found", "see `skytale channels`")
            assert await bob.find(CHANNEL) is None
            with pytest.raises(Misuse, match="not a member"):
                await plan.remove(bob.id)

    run(story())


def test_a_used_invite_is_denied() -> None:
    async def story() -> None:
        async with mesh("alice", "bob", "carol") as (alice, bob, carol):
            plan = await alice.channel(CHANNEL)
            invite = await plan.invite(uses=1)
            await bob.join(invite)
            with pytest.raises(Denied) as caught:
                await carol.join(invite)
            assert caught.value.code in ("invite_used", "invite_unknown")
            assert "ask for a new one" in str(caught.value)
            assert isinstance(caught.value, PermissionError)

    run(story())


def test_without_a_server_it_is_said_what_to_set(alone: Path) -> None:
    async def story() -> None:
        async with Agent("alice", data_dir=alone) as alice:
            await refused(lambda: alice.channel(CHANNEL), "misuse", "skytale up")

    run(story())


def test_a_server_that_does_not_answer_is_unreachable(alone: Path) -> None:
    async def story() -> None:
        key = "sk_test_00000000_" + "a" * 49
        agent = Agent("alice", data_dir=alone, api_url="http://127.0.0.1:9", api_key=key)
        async with agent as alice:
            with pytest.raises(Unreachable, match="check SKYTALE_API_URL, and that the") as caught:
                await alice.channel(CHANNEL)
            assert caught.value.retryable is True
            assert isinstance(caught.value, ConnectionError)

    run(story())


@pytest.mark.parametrize(
    ("status", "answer", "kind", "code", "hint"),
    [
        (200, b"hello", PeerMisbehaved, "peer_misbehaved", "is it a Skytale API server"),
        (502, b"hello", Unreachable, "unreachable", "a proxy before it, answers 502"),
        (403, problem("quota_exceeded", 90_000), Denied, "quota_exceeded", "in 25 hours"),
        (429, problem("too_many_requests", 7), Unreachable, "unreachable", "try again in 7 s"),
    ],
)
def test_what_an_api_server_answers_is_an_error_by_what_one_can_do(
    alone: Path, status: int, answer: bytes, kind: type[SkytaleError], code: str, hint: str
) -> None:
    async def story() -> None:
        key = "sk_test_00000000_" + "a" * 49
        with answering(status, answer) as url:
            async with Agent("alice", data_dir=alone, api_url=url, api_key=key) as alice:
                error = await refused(partial(alice.channel, CHANNEL), code, hint)
        assert isinstance(error, kind)
        assert error.retryable is (kind is Unreachable)

    run(story())


def test_a_wrong_api_key_is_denied_by_a_server_that_runs() -> None:
    async def story() -> None:
        running = mesh()
        async with running:
            assert running._running is not None
            settings = running._running.settings()
            key = settings["api_key"]
            assert key is not None
            settings["api_key"] = key[:-1] + ("a" if key[-1] != "a" else "b")
            # Without one, the API server is asked which relay it is; with one, for a token only.
            for number, relay in enumerate((None, settings["relay"])):
                eve = Agent(f"eve-{number}")
                eve._settings = {**settings, "relay": relay}
                async with eve:
                    asked = partial(eve.channel, CHANNEL)
                    error = await refused(asked, "unauthorized", "SKYTALE_API_KEY")
            assert isinstance(error, Denied) and isinstance(error, PermissionError)
            assert not error.retryable
            assert key[-20:-1] not in str(error)

    run(story())


def test_a_channel_that_is_over_takes_nothing_and_can_be_joined_again() -> None:
    async def story() -> None:
        async with mesh("alice", "bob") as (alice, bob):
            plan = await alice.channel(CHANNEL)
            work = await bob.join(await plan.invite())
            await work.leave()
            error = await refused(lambda: work.send("late"), "misuse", "join it again by a new")
            assert isinstance(error, Misuse)
            error = await refused(lambda: work.receive(1), "channel_closed", "no more messages")
            assert isinstance(error, Denied)

            work = await bob.join(await plan.invite())
            await work.send("back")
            await plan.remove(bob.id)
            error = await refused(lambda: work.receive(30), "channel_closed", "no more messages")
            error = await refused(lambda: work.send("late"), "misuse", "can let it in again")
            work = await bob.join(await plan.invite())
            await work.send("and again")

    run(story())


def test_a_channel_of_an_agent_that_is_closed_takes_nothing() -> None:
    async def story() -> None:
        async with mesh("alice") as (alice,):
            plan = await alice.channel(CHANNEL)
            await alice.close()
            error = await refused(lambda: plan.send("late"), "misuse", "closed: open it again")
            assert isinstance(error, Misuse)
            error = await refused(lambda: plan.receive(1), "channel_closed", "agent is closed")
            assert isinstance(error, Denied)

    run(story())


def test_what_is_queued_says_so(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = Timeout("storing the message took too long", queued=True)
    assert (error.code, error.queued) == ("timeout", True)


def test_a_wrong_key_opens_nothing(alone: Path) -> None:
    async def story() -> None:
        def agent(key: str | bytes) -> Agent:
            return Agent("alice", data_dir=alone, vault_key=key, relay=NOBODY, traffic="padded")

        async with agent(b"\x01" * 32) as alice:
            first = alice.id
        with pytest.raises(Damaged, match="wrong vault key"):
            await agent("02" * 32).open()
        async with agent(KEY) as alice:
            assert alice.id == first
        await refused(agent("0").open, "misuse", "64 hex digits")

    run(story())


def test_a_damaged_vault_is_said_to_be_damaged(alone: Path) -> None:
    async def story() -> None:
        agent = Agent("alice", data_dir=alone, vault_key=KEY, relay=NOBODY, traffic="padded")
        async with agent as alice:
            vault = Path(alice.data_dir) / "vault.db"
        for beside in vault.parent.glob("vault.db-*"):
            beside.unlink()
        content = bytearray(vault.read_bytes())
        content[:4096] = bytes(4096)
        vault.write_bytes(content)
        with pytest.raises(Damaged, match=r"check SKYTALE_VAULT_KEY .* else move it away"):
            await agent.open()

    run(story())


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"relay": "localhost"}, "64 hex digits"),
        ({"traffic": "loud"}, "padded"),
        ({"api_key": "sk_test_x"}, "SKYTALE_API_URL"),
    ],
)
def test_settings_are_checked_when_the_agent_is_opened(
    alone: Path, settings: dict[str, str], hint: str
) -> None:
    async def story() -> None:
        agent = Agent("alice", data_dir=alone, **settings)  # type: ignore[arg-type]
        await refused(agent.open, "misuse", hint)

    run(story())


def test_settings_of_wrong_types_are_refused_at_once(alone: Path) -> None:
    with pytest.raises(WrongType, match="data_dir is a path"):
        Agent("alice", data_dir=7)  # type: ignore[arg-type]
    with pytest.raises(WrongType, match="name is a str"):
        Agent(7)  # type: ignore[arg-type]
    with pytest.raises(WrongType, match="history is a str"):
        Agent("alice", history=7)  # type: ignore[arg-type]
    for nonsense in ("", "d", "7", "7 days", "-7d", "\u0667d", "99999999d"):
        with pytest.raises(Misuse, match="history is"):
            Agent("alice", history=nonsense)


def test_an_agent_that_is_not_open_says_so(alone: Path) -> None:
    async def story() -> None:
        agent = Agent("alice", data_dir=alone, vault_key=KEY, relay=NOBODY, traffic="padded")
        with pytest.raises(Misuse, match="not open"):
            await agent.channels()
        async with agent:
            assert await agent.channels() == []
        with pytest.raises(Misuse, match="not open"):
            await agent.channels()
        await agent.close()

    run(story())


def test_a_bad_name_opens_nothing(alone: Path) -> None:
    run(refused(Agent("../alice", data_dir=alone).open, "misuse", "letters, digits"))


def test_every_error_survives_pickling_with_its_code() -> None:
    for kind in (
        errors.Misuse,
        errors.WrongType,
        errors.Denied,
        errors.Unreachable,
        errors.PeerMisbehaved,
        errors.Damaged,
        errors.Timeout,
    ):
        error = kind("a sentence", "a_code", True, True)
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind
        assert (str(again), again.code, again.retryable) == ("a sentence", "a_code", True)
        assert kind("a sentence").code != "failed"
