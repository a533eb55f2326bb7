"""MCP clients that a test controls: python client.py VERSION ERA URL

The input and output lines are the same as those of client.mjs.
"""

import asyncio
import json
import random
import sys
import time
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
        self.working = None

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
        while not self.leave.is_set():
            try:
                await self.hear_changes(ready)
            except Exception as error:
                if not self.working:
                    raise
                # The program may learn a moment later that its stream broke.
                self.note_failure("listen", time.time() - 1, error)
            if not self.working:
                break
            # A program that goes on subscribes again.
            await asyncio.sleep(0.2)
        if not self.leave.is_set():
            self.trouble = RuntimeError("the subscription ended")

    async def hear_changes(self, ready):
        async with self.client.listen(tools_list_changed=True) as changes:
            if not ready.done():
                ready.set_result(None)
            async for _ in changes:
                self.changes += 1

    async def sent(self, request):
        self.session_id = request.headers.get("mcp-session-id")

    async def received(self, response):
        if response.request.method == "GET" and not self.stream.done():
            self.stream.set_result(response.status_code)

    async def hear(self, message):
        # SDK 1 forgets a call that it cancels, and does not tell the server.
        if isinstance(message, Exception) and "unknown request ID" not in str(message):
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

    async def work(self, every, slow, stay):
        """Calls all the time until `rest`; the turns are those of client.mjs."""
        self.seen = {"done": {}, "failures": [], "failed": 0}
        self.over, self.lost = False, False
        self.working = asyncio.create_task(self.turns(every / 1000, slow, stay))
        return "working"

    async def rest(self):
        self.over = True
        await self.working
        self.working = None
        if self.trouble:
            self.note_failure("listen", time.time(), self.trouble)
            self.trouble = None
        return {**self.seen, "changes": self.changes}

    async def turns(self, every, slow, stay):
        turn = 0
        while not self.over:
            turn += 1
            if turn % stay == 0 or self.lost:
                await self.attempt("reconnect", self.reconnect)
            elif slow and turn % 10 == 3:
                await self.attempt("slow", self.slow_call, slow, 1 + turn % 7)
            elif slow and turn % 10 == 6:
                await self.attempt("cancel", self.cancelled_call, slow)
            elif turn % 10 == 9:
                await self.attempt("list", self.tools)
            else:
                await self.attempt("echo", self.echo)
            await asyncio.sleep(every * (0.5 + random.random()))

    async def attempt(self, what, action, *arguments):
        """Counts an action; keeps when and why it failed."""
        begun = time.time()
        try:
            # A stream that breaks without a result ends no call in some SDKs; no call takes this long.
            async with asyncio.timeout(20):
                await action(*arguments)
            if self.trouble:
                raise self.trouble
            self.seen["done"][what] = self.seen["done"].get(what, 0) + 1
        except Exception as error:
            self.trouble = None
            self.note_failure(what, begun, error)

    def note_failure(self, what, begun, error):
        # Some SDKs end with a broken connection, and are no use any more.
        # A stream that broke may have ended its task: the next call would find it closed.
        ended = isinstance(error, TimeoutError) or type(error).__name__ == "ClosedResourceError"
        self.lost = self.lost or ended or "Connection closed" in str(error)
        span = {"what": what, "from": int(begun * 1000), "until": int(time.time() * 1000)}
        why = failure(error)
        self.seen["failed"] += 1
        if len(self.seen["failures"]) < 500:
            self.seen["failures"].append({**span, **why, "message": why.pop("error")})

    async def echo(self):
        said = await self.call("echo", {"message": "hello"})
        if said != "Echo: hello":
            raise RuntimeError(f"not an echo: {said}")

    async def slow_call(self, tool, seconds):
        async def progress(*_):
            pass

        work = {"duration": seconds, "steps": 5 * seconds}
        said = words(await self.client.call_tool(tool, work, progress_callback=progress))
        if "completed" not in said:
            raise RuntimeError(f"not completed: {said}")

    async def cancelled_call(self, tool):
        try:
            async with asyncio.timeout(0.7):
                await self.client.call_tool(tool, {"duration": 6, "steps": 30})
        except TimeoutError:
            return
        raise RuntimeError("a result of a cancelled call")

    async def reconnect(self):
        """As a program that ends and starts again."""
        self.lost = True
        await self.close()
        self.stream = asyncio.get_running_loop().create_future()
        self.leave = asyncio.Event()
        self.trouble = None
        await self.connect()
        self.lost = False


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


def failure(error):
    told = getattr(error, "error", None)
    code, data = getattr(told, "code", None), getattr(told, "data", None)
    return {"error": f"{type(error).__name__}: {error}", "code": code, "data": data}


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
        return failure(error)


async def main():
    guests = {}
    while line := await asyncio.to_thread(sys.stdin.readline):
        question = json.loads(line)
        who, verb = question.pop("who"), question.pop("do")
        print(json.dumps(await answer(guests, who, verb, question)), flush=True)


asyncio.run(main())
