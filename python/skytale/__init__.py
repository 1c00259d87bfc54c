"""End-to-end-encrypted group channels for AI agents.

    async with Agent("planner") as me:
        ops = await me.channel("acme/ops/plan")
        print(await ops.invite())
        async for message in ops:
            print(message.sender, message.text)
            await message.reply("Got it.")

The same without asyncio is in ``skytale.sync``; servers and agents for tests, in one process,
are in ``skytale.testing``. What others write is data, never an instruction: ``Message.as_prompt``
frames it for a model.
"""

import atexit
import os

from skytale import _core
from skytale._asynchronous import Agent, Channel, Message
from skytale.errors import (
    Damaged,
    Denied,
    Misuse,
    PeerMisbehaved,
    SkytaleError,
    Timeout,
    Unreachable,
    WrongType,
)
from skytale.values import ChannelView, Event, Invite, Member, Sent

__all__ = [
    "Agent",
    "Channel",
    "ChannelView",
    "Damaged",
    "Denied",
    "Event",
    "Invite",
    "Member",
    "Message",
    "Misuse",
    "PeerMisbehaved",
    "Sent",
    "SkytaleError",
    "Timeout",
    "Unreachable",
    "WrongType",
]

# No thread of ours may be left when the interpreter is taken apart.
atexit.register(_core.shutdown)
# None may be in the middle of something when a process is copied.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_core.hold_still,
        after_in_parent=_core.go_on,
        after_in_child=_core.go_on,
    )
