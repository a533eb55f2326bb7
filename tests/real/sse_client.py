"""A client with the HTTP+SSE transport: python sse_client.py URL

For each line on its input it prints the names of the tools, or "error".
"""

import asyncio
import json
import sys

from mcp import ClientSession
from mcp.client.sse import sse_client


async def main():
    async with sse_client(sys.argv[1]) as (read, write):
        async with ClientSession(read, write) as session:
            await session.initialize()
            while await asyncio.to_thread(sys.stdin.readline):
                try:
                    listed = await asyncio.wait_for(session.list_tools(), 20)
                    print(json.dumps([tool.name for tool in listed.tools]), flush=True)
                except Exception as error:
                    print(json.dumps(f"error: {error!r}"), flush=True)


asyncio.run(main())
