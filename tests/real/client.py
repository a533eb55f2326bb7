"""MCP clients that a test controls: python client.py VERSION ERA URL

The input and output lines are the same as those of client.mjs.
"""

import asyncio
import json
import sys
from contextlib import asynccontextmanager

VERSION, ERA, URL = sys.argv[1:]

if VERSION == "1":
    import httpx
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client
    from pydantic import AnyUrl
else:
    import httpx2 as httpx
    from mcp.client.client import Client
    from mcp.client.streamable_http import streamable_http_client


class Guest:
    """One client in its own task, since the SDK requires that one task enters and exits a client."""

    def __init__(self):
        self.changes = 0
        self.updates = 0
        self.session_id = None
        self.stream = asyncio.get_running_loop().create_future()
        self.leave = asyncio.Event()
        self.trouble = None

    async def connect(self):
        ready = asyncio.get_running_loop().create_future()
        self.life = asyncio.create_task(self.live(ready))
        await asyncio.wait([self.life, ready], return_when=asyncio.FIRST_COMPLETED)
        if self.life.done():
            self.life.result()
        stream = await self.stream if ERA == "legacy" else None
        return {"session": self.session_id, "stream": stream}

    async def live(self, ready):
        # The read timeout is long, since a stream can stay idle.
        timeout = httpx.Timeout(30, read=300)
        hooks = {"request": [self.sent], "response": [self.received]}
        async with httpx.AsyncClient(timeout=timeout, event_hooks=hooks) as http:
            async with connected(http, self.hear) as self.client:
                if ERA == "modern":
                    await self.listen(ready)
                else:
                    ready.set_result(None)
                    await self.leave.wait()

    async def listen(self, ready):
        async with self.client.listen(tools_list_changed=True) as changes:
            ready.set_result(None)
            async for _ in changes:
                self.changes += 1
        if not self.leave.is_set():
            self.trouble = RuntimeError("the subscription ended")

    async def sent(self, request):
        self.session_id = request.headers.get("mcp-session-id")

    async def received(self, response):
        if response.request.method == "GET" and not self.stream.done():
            self.stream.set_result(response.status_code)

    async def hear(self, message):
        if isinstance(message, Exception):
            self.trouble = message
        method = getattr(getattr(message, "root", message), "method", None)
        self.changes += method == "notifications/tools/list_changed"
        self.updates += method == "notifications/resources/updated"

    async def id(self):
        return self.session_id

    async def news(self):
        return await soon(lambda: self.changes, 5)

    async def updated(self):
        return await soon(lambda: self.updates, 20)

    async def tools(self):
        return [tool.name for tool in (await self.client.list_tools()).tools]

    async def call(self, tool, input):
        return words(await self.client.call_tool(tool, input))

    async def begin(self, tool, input):
        """Returns when the server works on the call; `finish` waits for the result."""
        begun = asyncio.Event()

        async def progress(*_):
            begun.set()

        self.pending = asyncio.create_task(
            self.client.call_tool(tool, input, progress_callback=progress)
        )
        waits = asyncio.create_task(begun.wait())
        await asyncio.wait([self.pending, waits], return_when=asyncio.FIRST_COMPLETED)
        if self.pending.done():
            self.pending.result()
        return "begun"

    async def finish(self):
        return words(await self.pending)

    async def subscribe(self, uri):
        await self.client.subscribe_resource(AnyUrl(uri) if VERSION == "1" else uri)
        return "subscribed"

    async def close(self):
        self.leave.set()
        if ERA == "modern":
            self.life.cancel()
        await asyncio.wait([self.life])
        return "closed"


@asynccontextmanager
async def connected(http, hear):
    transport = streamable_http_client(URL, http_client=http)
    if VERSION == "1":
        async with transport as (read, write, _):
            async with ClientSession(read, write, message_handler=hear) as session:
                await session.initialize()
                yield session
    else:
        mode = "legacy" if ERA == "legacy" else "2026-07-28"
        async with Client(transport, mode=mode, message_handler=hear) as client:
            yield client


async def soon(heard, seconds):
    """Returns the number of notifications; waits at most `seconds` for the first."""
    for _ in range(10 * seconds):
        if heard():
            break
        await asyncio.sleep(0.1)
    return heard()


def words(result):
    text = "".join(part.text for part in result.content)
    if getattr(result, "isError", False) or getattr(result, "is_error", False):
        raise RuntimeError(f"the tool failed: {text}")
    return text


async def answer(guests, who, verb, rest):
    if verb == "connect":
        guests[who] = Guest()
    guest = guests[who]
    try:
        ok = await getattr(guest, verb)(**rest)
        if guest.trouble:
            raise guest.trouble
        return {"ok": ok}
    except Exception as error:
        told = getattr(error, "error", None)
        code, data = getattr(told, "code", None), getattr(told, "data", None)
        return {"error": f"{type(error).__name__}: {error}", "code": code, "data": data}


async def main():
    guests = {}
    while line := await asyncio.to_thread(sys.stdin.readline):
        question = json.loads(line)
        who, verb = question.pop("who"), question.pop("do")
        print(json.dumps(await answer(guests, who, verb, question)), flush=True)


asyncio.run(main())
