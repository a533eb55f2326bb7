"""A server of the Python SDK, for clients with sessions and without. The releases name its tool."""

import asyncio
import os

from mcp.server.mcpserver import Context, MCPServer


def serve(slow, broken=False):
    server = MCPServer("dual")

    @server.tool()
    async def echo(message: str) -> str:
        if broken:
            raise RuntimeError("the echo is broken")
        return f"Echo: {message}"

    @server.tool(name=slow)
    async def work(duration: float, steps: int, context: Context) -> str:
        for step in range(steps):
            await context.report_progress(step, steps)
            await asyncio.sleep(duration / steps)
        return "completed"

    server.run("streamable-http", host="127.0.0.1", port=int(os.environ["PORT"]))
