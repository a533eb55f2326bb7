"""A weather server of the Python SDK, whose releases are healthy or broken as servers are in practice."""

import os
import resource

from mcp.server.mcpserver import MCPServer

# What a host gives such a server.
MEMORY_MAX = 768 * 1024 * 1024
REGIONS = {"Berlin": "north", "Rome": "south"}


def serve(broken=None):
    server = MCPServer("weather")
    seen = []

    def region_of(city):
        # The data of the new release lost a column.
        row = {"city": city} if broken == "exception" else {"city": city, "region": REGIONS[city]}
        return row["region"]

    if broken == "argument":

        @server.tool()
        async def forecast(city: str, unit: str) -> str:
            return f"{city}: 21 degrees {unit}"

    else:

        @server.tool()
        async def forecast(city: str) -> str:
            if broken == "memory":
                # A cache without a limit.
                seen.append(bytearray(24 * 1024 * 1024))
            if broken == "empty":
                # The query of the new release matches no row.
                return ""
            return f"{city} in the {region_of(city)}: 21 degrees"

    @server.tool()
    async def alerts(city: str) -> str:
        return f"no alerts for {city}"

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
    server.run("streamable-http", host="127.0.0.1", port=int(os.environ["PORT"]))
