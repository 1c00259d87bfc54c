"""SLIM's own node, from the package of its Python bindings, for whoever wants to compare with it.

usage: node.py IP:PORT      says {"ready": …} when it listens, and ends when stdin does
"""

import asyncio
import json
import os
import sys

import slim_bindings as slim


# It logs to stdout: what is said here has that pipe for itself, and the log goes to stderr.
mouth = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


async def main(address):
    slim.initialize_with_defaults()
    service = slim.get_global_service()
    await service.run_server_async(slim.new_insecure_server_config(address))
    print(json.dumps({"ready": slim.get_version()}), file=mouth, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    service.stop_server(address)


asyncio.run(main(sys.argv[1]))
