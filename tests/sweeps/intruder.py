"""A process without keys that tries every port it is given: ``intruder.py PORT …`` prints what answered it."""

from __future__ import annotations

import asyncio
import sys
import urllib.error
import urllib.request

from distributed.comm import connect
from distributed.security import Security

PATHS = ("", "status", "health", "metrics", "info/main/workers.html", "json/identity.json")


async def asked(port, scheme, **keys):
    """Who answers a question that any node of a cluster answers."""
    comm = await asyncio.wait_for(connect(f"{scheme}://127.0.0.1:{port}", timeout=3, **keys), 4)
    await comm.write({"op": "identity", "reply": True})
    return await asyncio.wait_for(comm.read(), 3)


async def fetched(port, path):
    def fetch():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=3) as answer:
            return answer.read()

    return await asyncio.to_thread(fetch)


async def main(ports):
    foreign = Security.temporary().get_connection_args("client")  # keys, but others
    tries = {}
    for port in ports:
        tries |= {(port, "tcp"): asked(port, "tcp"), (port, "tls"): asked(port, "tls", **foreign)}
        tries |= {(port, path): fetched(port, path) for path in PATHS}
    answers = await asyncio.gather(*tries.values(), return_exceptions=True)
    for what, answer in zip(tries, answers, strict=True):
        if not isinstance(answer, Exception | asyncio.CancelledError):
            print("answered:", *what, str(answer)[:200])
    print("tried", len(answers))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
