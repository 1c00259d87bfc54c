"""One stock SLIM agent that does what it is told and says what happens to it, in lines of JSON.

usage: agent.py URL ORGANISATION/NAMESPACE/NAME

An order on stdin is {"do": ...} with what the function of that name below takes; it is answered by
{"done": ...} or {"failed": ...}, in order. In between stand events: {"session": id, ...} when somebody
has invited this agent, {"got": text, ...} for each message, {"ended": id, ...} when a session is over.
Ends when stdin does, so that none outlives a test. Runs with slim-bindings 1.2.0 to 3.3.8: what differs
among them is in the class Binding, and nowhere else.
"""

import asyncio
import datetime
import json
import os
import sys
import time

import slim_bindings as slim

SECRET = "what the agents of a test share among themselves"


# The package logs to stdout: what is said here has that pipe for itself, and the log goes to stderr.
mouth = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def say(**line):
    print(json.dumps(line), file=mouth, flush=True)


class Binding:
    """What the versions of the package call differently."""

    WITH_STATES = hasattr(slim, "CloseMode")

    @staticmethod
    def begin(loop):
        slim.initialize_with_defaults()
        for module in (slim, getattr(slim, "_slim_bindings", None)):
            if hasattr(module, "uniffi_set_event_loop"):
                module.uniffi_set_event_loop(loop)

    @staticmethod
    def session(group, mls, interval_ms, retries):
        how = {
            "session_type": slim.SessionType.GROUP if group else slim.SessionType.POINT_TO_POINT,
            "max_retries": retries,
            "interval": datetime.timedelta(milliseconds=interval_ms),
            "metadata": {},
        }
        if hasattr(slim, "MlsSettings"):
            settings = slim.MlsSettings(
                header_integrity_validation_percent=100, max_seen_control_message_ids_size=None
            )
            how["mls_settings"] = settings if mls else None
        else:
            how["enable_mls"] = mls
        return slim.SessionConfig(**how)

    @staticmethod
    def participant(one):
        """A name and whether it is there; the first generation has names only."""
        name, status = getattr(one, "name", one), getattr(one, "status", None)
        return text_of(name), status is None or status == slim.ParticipantStatus.ONLINE


class Agent:
    def __init__(self, app, connection):
        self.app = app
        self.connection = connection
        self.sessions = {}
        self.readers = {}
        self.echoing = False
        self.answers = asyncio.Queue()

    # Orders

    async def open(self, to, group=False, mls=True, interval_ms=1000, retries=10):
        """A session with an agent, or a group of that name."""
        if not group:
            await self.app.set_route_async(name_of(to), self.connection)
        config = Binding.session(group, mls, interval_ms, retries)
        session = await self.app.create_session_and_wait_async(config, name_of(to))
        return {"session": self.enter(session)}

    async def invite(self, session, who):
        await self.app.set_route_async(name_of(who), self.connection)
        await self.sessions[session].invite_and_wait_async(name_of(who))

    async def remove(self, session, who):
        await self.sessions[session].remove_and_wait_async(name_of(who))

    async def publish(self, session, texts, bytes=0, wait=True):
        """Says all of them, then waits until every member has all."""
        handles = []
        for text in texts:
            payload = text.encode().ljust(bytes)
            handles.append(await self.sessions[session].publish_async(payload, None, None))
        if wait:
            for handle in handles:
                await handle.wait_async()

    async def echo(self, on):
        """Whether what comes is said back to the session."""
        self.echoing = on

    async def ask(self, session, count, bytes):
        """One message at a time to somebody who echoes; how long each took, in microseconds."""
        took = []
        for number in range(count):
            begun = time.perf_counter()
            payload = f"ask {number}".encode().ljust(bytes)
            await self.sessions[session].publish_async(payload, None, None)
            while await self.answers.get() != payload.rstrip():
                pass
            took.append(round((time.perf_counter() - begun) * 1e6))
        return {"micros": took}

    async def participants(self, session):
        found = await self.sessions[session].participants_list_async()
        return {"participants": sorted(Binding.participant(one) for one in found)}

    async def soft_close(self, session):
        """Goes offline; the session stays and `rejoin` brings it back."""
        await self.sessions[session].close_with_mode_and_wait_async(slim.CloseMode.SOFT)

    async def rejoin(self, session):
        await self.sessions[session].rejoin_and_wait_async()

    async def close(self, session):
        await self.app.delete_session_and_wait_async(self.sessions.pop(session))

    # What comes

    def enter(self, session):
        number = session.session_id()
        self.sessions[number] = session
        self.readers[number] = asyncio.create_task(self.read(number, session))
        return number

    async def welcome(self):
        while True:
            session = await self.app.listen_for_session_async(None)
            say(session=self.enter(session), source=text_of(session.source()))

    async def read(self, number, session):
        while True:
            try:
                message = await session.get_message_async(None)
            except Exception as error:
                if "timeout" in str(error).lower():
                    continue
                say(ended=number, why=str(error))
                return
            payload = message.payload.rstrip()
            if payload.startswith(b"ask "):
                if self.echoing:
                    await session.publish_async(message.payload, None, None)
                else:
                    self.answers.put_nowait(payload)
            else:
                say(got=payload.decode(), session=number, source=text_of(message.context.source_name))

    async def obey(self, orders):
        while line := await orders.readline():
            order = json.loads(line)
            do = order.pop("do")
            try:
                done = await getattr(self, do)(**order)
                say(done=do, **(done or {}))
            except Exception as error:
                say(failed=do, why=f"{type(error).__name__}: {error}")


def name_of(text):
    return slim.Name(*text.split("/"))


def text_of(name):
    return "/".join(name.components())


def client_config(url):
    """How the port is reached: with TLS and a token where the environment names the files."""
    certificate, token = (os.environ.get(f"SKYTALE_SLIM_{it}") for it in ("CA", "TOKEN"))
    if certificate is None:
        return slim.new_insecure_client_config(url)
    config = slim.new_secure_client_config(url)
    config.tls.ca_source = slim.CaSource.FILE(certificate)
    if token is not None:
        jwt = slim.StaticJwtAuth(token_file=token, duration=datetime.timedelta(hours=1))
        config.auth = slim.ClientAuthenticationConfig.STATIC_JWT(jwt)
    return config


async def main(url, who):
    loop = asyncio.get_running_loop()
    Binding.begin(loop)
    orders = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    service = slim.get_global_service()
    app = service.create_app_with_secret(name_of(who), SECRET)
    connection = await service.connect_async(client_config(url))
    await app.subscribe_async(app.name(), connection)
    agent = Agent(app, connection)
    listening = asyncio.create_task(agent.welcome())
    say(ready=who, speaks=slim.get_version(), states=Binding.WITH_STATES)
    await agent.obey(orders)
    listening.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
