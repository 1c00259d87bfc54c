"""Records what unmodified SLIM clients say, for `captured.rs` and `vectors.rs`.

A small relay, independent of the Rust one: protobuf by protoc's Python output, X25519, HKDF and
HMAC by the `cryptography` package. It knows each link's key because it chose its own half, so the
header MACs in the recording are a stock client's and can be checked by whoever reads it.

    python -m grpc_tools.protoc -I proto/slim --python_out=OUT slim_2x.proto
    PYTHONPATH=OUT python record.py 2 > second.jsonl     (slim-bindings 3.3.8 in this environment)
    PYTHONPATH=OUT python record.py 1 CLIENT_PYTHON > first.jsonl   (slim-bindings 1.4.1 in CLIENT_PYTHON's)
"""

import hashlib
import hmac
import importlib
import json
import queue
import struct
import subprocess
import sys
import threading
from concurrent import futures

import grpc
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

GENERATION = int(sys.argv[1])
CLIENT_PYTHON = sys.argv[2] if len(sys.argv) > 2 else sys.executable
pb = importlib.import_module(f"slim_{GENERATION}x_pb2")
NULL = (1 << 128) - 1 if GENERATION == 2 else (1 << 64) - 1
lock = threading.Lock()
links = {}
routes = {}


def say(**line):
    with lock:
        print(json.dumps(line), flush=True)


def opt(value):
    return b"\0" if value is None else b"\1" + struct.pack("<Q", value)


def text(value):
    value = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<I", len(value)) + value


def name(holder, field):
    if not holder.HasField(field):
        return b"\0"
    it = getattr(holder, field)
    out = b"\1"
    if it.HasField("name"):
        e = it.name
        out += b"\1" + struct.pack("<QQQ", e.component_0, e.component_1, e.component_2)
        if e.HasField("name_id"):
            out += b"\1" + struct.pack("<QQ", e.name_id.id_0, e.name_id.id_1)
        else:
            out += b"\0"
    else:
        out += b"\0"
    if it.HasField("str_name"):
        s = it.str_name
        out += b"\1" + text(s.str_component_0) + text(s.str_component_1) + text(s.str_component_2)
    else:
        out += b"\0"
    return out


def preimage(link_id, h):
    has = lambda field: getattr(h, field) if h.HasField(field) else None
    error = has("error")
    return (
        b"SLIM-DP-HDR-v1\0" + text(link_id) + name(h, "source") + name(h, "destination")
        + text(h.identity) + struct.pack("<I", h.fanout)
        + opt(has("recv_from")) + opt(has("forward_to"))
        + (b"\0" if error is None else b"\1" + bytes([error])) + struct.pack("<I", h.ttl)
    )


def mac(link, h):
    return hmac.new(link["key"], preimage(link["id"], h), hashlib.sha256).digest()


def key(n):
    e = n.name
    if GENERATION == 1:
        return (e.component_0, e.component_1, e.component_2), e.component_3
    wide = e.name_id.id_0 << 64 | e.name_id.id_1 if e.HasField("name_id") else NULL
    return (e.component_0, e.component_1, e.component_2), wide


def negotiate(number, link, m):
    n = m.link.link_negotiation
    link["id"] = n.link_id
    reply = pb.Message()
    r = reply.link.link_negotiation
    r.link_id, r.is_reply = n.link_id, True
    if GENERATION == 1:
        r.slim_version = "1.4.0"
        return reply
    secret = hashlib.sha256(b"recorded link %d" % number).digest()
    ours = X25519PrivateKey.from_private_bytes(secret)
    shared = ours.exchange(X25519PublicKey.from_public_bytes(n.link_ecdh_public_key))
    link["key"] = HKDF(hashes.SHA256(), 32, n.link_id.encode(), b"SLIM-DP-inter-node-hmac-v1").derive(shared)
    say(link=number, link_id=n.link_id, secret=secret.hex(), key=link["key"].hex())
    r.slim_version, r.connection_type, r.node_id = "3.4.6", n.connection_type, "recorder"
    r.link_ecdh_public_key = ours.public_key().public_bytes(
        serialization.Encoding.Raw, serialization.PublicFormat.Raw
    )
    return reply


def send(number, m):
    raw = m.SerializeToString()
    say(link=number, way="<-", hex=raw.hex())
    links[number]["out"].put(raw)


def handle(number, raw):
    link = links[number]
    say(link=number, way="->", hex=raw.hex())
    m = pb.Message.FromString(raw)
    assert m.SerializeToString(deterministic=True) == raw or len(m.metadata) > 1, "not canonical"
    kind = m.WhichOneof("message_type")
    if kind == "link":
        return send(number, negotiate(number, link, m))
    h = getattr(m, kind).header
    if GENERATION == 2:
        assert hmac.compare_digest(mac(link, h), h.header_mac), "wrong MAC"
    components, instance = key(h.destination)
    with lock:
        ids = routes.setdefault(components, {})
        if kind == "subscribe":
            ids.setdefault(instance, set()).add(number)
        elif kind == "unsubscribe":
            ids.get(instance, set()).discard(number)
        elif instance == NULL:
            to = set().union(*ids.values()) - {number}
        else:
            to = ids.get(instance, set()) - {number}
    if kind != "publish":
        asked = getattr(m, kind).subscription_id
        if asked:
            ack = pb.Message()
            ack.subscription_ack.subscription_id, ack.subscription_ack.success = asked, True
            send(number, ack)
        return
    for other in sorted(to)[: 1 if h.fanout <= 1 else None]:
        onward = pb.Message.FromString(raw)
        oh = onward.publish.header
        oh.incoming_conn = number
        if GENERATION == 2:
            oh.ttl -= 1
            oh.header_mac = mac(links[other], oh)
        send(other, onward)


def channel(requests, context):
    context.send_initial_metadata(())
    out = queue.Queue()
    with lock:
        number = len(links) + 1
        links[number] = {"out": out, "key": b"", "id": ""}

    def read():
        try:
            for raw in requests:
                handle(number, raw)
        except grpc.RpcError:
            pass
        finally:
            out.put(None)

    threading.Thread(target=read, daemon=True).start()
    while (raw := out.get()) is not None:
        yield raw


CLIENT = r"""
import asyncio, datetime, sys
import slim_bindings as s
port, who, mls = sys.argv[1:4]
SECRET = "a secret shared by all who are recorded here"

async def main():
    s.initialize_with_defaults()
    try: s.uniffi_set_event_loop(asyncio.get_running_loop())
    except AttributeError: pass
    service = s.get_global_service()
    app = service.create_app_with_secret(s.Name("org", "ns", who), SECRET)
    conn = await service.connect_async(s.new_insecure_client_config(f"http://127.0.0.1:{port}"))
    await app.subscribe_async(app.name(), conn)
    print("ready", flush=True)
    short = datetime.timedelta(seconds=20)
    def config(kind):
        more = dict(session_type=kind, max_retries=5, interval=datetime.timedelta(seconds=1), metadata={})
        if hasattr(s, "MlsSettings"):
            more["mls_settings"] = s.MlsSettings(header_integrity_validation_percent=100, max_seen_control_message_ids_size=None) if mls == "mls" else None
        else:
            more["enable_mls"] = mls == "mls"
        return s.SessionConfig(**more)
    if who == "alice":
        for other in ("bob", "carol"):
            await app.set_route_async(s.Name("org", "ns", other), conn)
        pair = await app.create_session_and_wait_async(config(s.SessionType.POINT_TO_POINT), s.Name("org", "ns", "bob"))
        await pair.publish_and_wait_async(b"hello bob", None, None)
        await app.delete_session_and_wait_async(pair)
        group = await app.create_session_and_wait_async(config(s.SessionType.GROUP), s.Name("org", "ns", "chan"))
        await group.invite_and_wait_async(s.Name("org", "ns", "bob"))
        await group.invite_and_wait_async(s.Name("org", "ns", "carol"))
        await group.publish_and_wait_async(b"hello all", None, None)
        await group.remove_and_wait_async(s.Name("org", "ns", "carol"))
        await group.publish_and_wait_async(b"hello rest", None, None)
        await asyncio.sleep(11)
        await app.delete_session_and_wait_async(group)
        await asyncio.sleep(1)
        print("done", flush=True)
    else:
        async def serve():
            while True:
                session = await app.listen_for_session_async(None)
                asyncio.create_task(take(session))
        async def take(session):
            while True:
                try: await session.get_message_async(short)
                except Exception: return
        await serve()

asyncio.run(main())
"""


def main():
    server = grpc.server(futures.ThreadPoolExecutor(8))
    handler = grpc.stream_stream_rpc_method_handler(channel)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("dataplane.proto.v1.DataPlaneService", {"OpenChannel": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    clients = []
    for who in ("bob", "carol", "alice"):
        command = [CLIENT_PYTHON, "-c", CLIENT, str(port), who, "mls"]
        client = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sys.stderr, text=True)
        clients.append(client)
        for line in client.stdout:
            if "ready" in line:
                break
    for line in clients[-1].stdout:
        if "done" in line:
            break
    for client in clients:
        client.kill()
    server.stop(0)


main()
