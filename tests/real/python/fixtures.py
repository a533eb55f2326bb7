"""A server of the Python SDK with what the conformance suite asks for by name."""

import asyncio
import os

from mcp.server.mcpserver import Context, MCPServer
from mcp.types import (
    AudioContent,
    Completion,
    EmbeddedResource,
    ImageContent,
    SamplingMessage,
    TextContent,
    TextResourceContents,
)

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
SILENCE = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA="
IMAGE = ImageContent(type="image", data=PIXEL, mime_type="image/png")

# The suite wants one for everything.
WHY = "For the conformance suite"

server = MCPServer("fixtures")


def text(words):
    return TextContent(type="text", text=words)


def embedded(uri, kind, words):
    resource = TextResourceContents(uri=uri, mime_type=kind, text=words)
    return EmbeddedResource(type="resource", resource=resource)


@server.tool(description=WHY)
def test_simple_text() -> str:
    return "This is a simple text response for testing."


@server.tool(description=WHY, structured_output=False)
def test_image_content():
    return [IMAGE]


@server.tool(description=WHY, structured_output=False)
def test_audio_content():
    return [AudioContent(type="audio", data=SILENCE, mime_type="audio/wav")]


@server.tool(description=WHY, structured_output=False)
def test_embedded_resource():
    return [embedded("test://embedded-resource", "text/plain", "An embedded resource.")]


@server.tool(description=WHY, structured_output=False)
def test_multiple_content_types():
    more = embedded("test://mixed-content-resource", "application/json", '{"value": 123}')
    return [text("Multiple content types test:"), IMAGE, more]


@server.tool(description=WHY)
async def test_tool_with_logging(context: Context) -> str:
    for step in ["started", "processing data", "completed"]:
        await context.info(f"Tool execution {step}")
        await asyncio.sleep(0.05)
    return "done"


@server.tool(description=WHY)
async def test_tool_with_progress(context: Context) -> str:
    for step in [0, 50, 100]:
        await context.report_progress(step, 100)
        await asyncio.sleep(0.05)
    return "done"


@server.tool(description=WHY)
def test_error_handling() -> str:
    raise RuntimeError("This tool intentionally returns an error for testing")


@server.tool(description=WHY)
async def test_sampling(prompt: str, context: Context) -> str:
    message = SamplingMessage(role="user", content=text(prompt))
    # Without the id it goes to the listening stream, which the client may not have opened yet.
    answer = await context.session.create_message(
        messages=[message], max_tokens=100, related_request_id=context.request_id
    )
    return f"LLM response: {answer.content.text}"


async def ask(context, message, fields):
    schema = {"type": "object", "properties": fields, "required": []}
    answer = await context.session.elicit_form(message, schema, context.request_id)
    return f"action={answer.action}, content={answer.content}"


@server.tool(description=WHY)
async def test_elicitation(message: str, context: Context) -> str:
    return await ask(context, message, {"response": {"type": "string"}})


@server.tool(description=WHY)
async def test_elicitation_sep1034_defaults(context: Context) -> str:
    status = {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"}
    fields = {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": status,
        "verified": {"type": "boolean", "default": True},
    }
    return await ask(context, "Who are you?", fields)


@server.tool(description=WHY)
async def test_elicitation_sep1330_enums(context: Context) -> str:
    options = ["option1", "option2", "option3"]
    titled = [{"const": f"value{n}", "title": f"Choice {n}"} for n in (1, 2, 3)]
    names = [f"Option {n}" for n in (1, 2, 3)]
    fields = {
        "untitledSingle": {"type": "string", "enum": options},
        "titledSingle": {"type": "string", "oneOf": titled},
        "legacyEnum": {"type": "string", "enum": ["opt1", "opt2", "opt3"], "enumNames": names},
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": options}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled}},
    }
    return await ask(context, "Which ones?", fields)


@server.resource("test://static-text")
def static_text() -> str:
    return "This is the content of the static text resource."


@server.resource("test://static-binary", mime_type="image/png")
def static_binary() -> bytes:
    return b"\x89PNG"


@server.resource("test://template/{id}/data")
def template(id: str) -> str:
    return f'{{"id": "{id}"}}'


@server.prompt(description=WHY)
def test_simple_prompt() -> str:
    return "This is a simple prompt for testing."


@server.prompt(description=WHY)
def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
    return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"


@server.prompt(description=WHY)
def test_prompt_with_embedded_resource(resourceUri: str) -> list:
    return [{"role": "user", "content": embedded(resourceUri, "text/plain", "Embedded.")}]


@server.prompt(description=WHY)
def test_prompt_with_image() -> list:
    return [{"role": "user", "content": IMAGE}, "Please analyze the image above."]


@server.completion()
async def complete(ref, argument, context) -> Completion:
    return Completion(values=["park"], total=1, has_more=False)


server.run("streamable-http", host="127.0.0.1", port=int(os.environ["PORT"]))
