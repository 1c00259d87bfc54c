"""Makes `hybrid.json`: a link with ML-KEM, as no released binding of SLIM can be told to open one.

Computed by the `cryptography` package from the secrets that the dialling side would draw, so that
key agreement, label and MAC are held to something that is not the code under test.

    PYTHONPATH=OUT python hybrid.py > hybrid.json   (OUT as in record.py)
"""

import hashlib
import hmac
import json
import struct

import slim_2x_pb2 as pb
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

LINK_ID = "3b2a7c52-0c1e-4f0e-9a57-5d4a2f3e1c00"
drawn = hashlib.sha256(b"dialling x25519").digest() + hashlib.sha512(b"dialling ml-kem").digest()
dialling = X25519PrivateKey.from_private_bytes(drawn[:32])
kem = MLKEM768PrivateKey.from_seed_bytes(drawn[32:])
node = X25519PrivateKey.from_private_bytes(hashlib.sha256(b"node x25519").digest())

request = pb.Message()
r = request.link.link_negotiation
r.link_id, r.slim_version, r.connection_type, r.node_id = LINK_ID, "3.4.6", pb.LINK_CONNECTION_TYPE_EDGE, "alice"
r.link_ecdh_public_key = dialling.public_key().public_bytes_raw()
r.link_kem_payload = kem.public_key().public_bytes_raw()

hidden, ciphertext = kem.public_key().encapsulate()
if len(hidden) != 32:
    hidden, ciphertext = ciphertext, hidden
reply = pb.Message()
p = reply.link.link_negotiation
p.link_id, p.slim_version, p.is_reply, p.connection_type = LINK_ID, "3.4.6", True, r.connection_type
p.node_id = "node"
p.link_ecdh_public_key = node.public_key().public_bytes_raw()
p.link_kem_payload = ciphertext

shared = node.exchange(dialling.public_key())
key = HKDF(hashes.SHA256(), 32, LINK_ID.encode(), b"SLIM-DP-inter-node-hmac-v1-pq").derive(shared + hidden)

message = pb.Message()
message.publish.session.session_message_type = pb.SESSION_MESSAGE_TYPE_MSG
message.publish.msg.app_payload.blob = b"hello"
h = message.publish.header
h.fanout, h.ttl, h.recv_from, h.error = 256, 3, 7, True
h.source.name.component_0 = 1
h.source.name.name_id.id_1 = 5
h.destination.name.component_2 = 2
h.destination.str_name.str_component_0 = "Zürich"
text = lambda value: struct.pack("<I", len(value)) + value
preimage = (
    b"SLIM-DP-HDR-v1\0" + text(LINK_ID.encode())
    + b"\1" + b"\1" + struct.pack("<QQQ", 1, 0, 0) + b"\1" + struct.pack("<QQ", 0, 5) + b"\0"
    + b"\1" + b"\1" + struct.pack("<QQQ", 0, 0, 2) + b"\0" + b"\1" + text("Zürich".encode()) + text(b"") + text(b"")
    + text(b"") + struct.pack("<I", 256)
    + b"\1" + struct.pack("<Q", 7) + b"\0" + b"\1\1" + struct.pack("<I", 3)
)
h.header_mac = hmac.new(key, preimage, hashlib.sha256).digest()

print(json.dumps({
    "link_id": LINK_ID,
    "drawn": drawn.hex(),
    "request": request.SerializeToString().hex(),
    "reply": reply.SerializeToString().hex(),
    "message": message.SerializeToString().hex(),
}, indent=1))
