"""The API's description for machines, and Swagger UI for people: all of it served from here."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import swagger_ui_bundle  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
from aiohttp import ETag, web

from harkara.http.context import Context
from harkara.http.openapi import describe
from harkara.http.problems import Problem
from harkara.http.route import JSON, Route

UI = Path(str(swagger_ui_bundle.swagger_ui_path))

#: The version is in the addresses of the files, so that these can be kept for ever.
VERSION = UI.name.rpartition("-")[2]

#: The files of Swagger UI that the page needs; nothing else of the package is served.
FILES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}

START = """\
window.ui = SwaggerUIBundle({
  url: new URL("openapi.json", document.baseURI).href,
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  filter: true,
});
"""

PAGE = f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Harkara API</title>
<link rel="icon" type="image/png" href="docs/{VERSION}/favicon-32x32.png">
<link rel="stylesheet" href="docs/{VERSION}/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/{VERSION}/swagger-ui-bundle.js"></script>
<script src="docs/{VERSION}/start.js"></script>
</body>
</html>
"""

#: Scripts and styles only from here, none written into the page; calls go only to this API.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Description:
    """The document as it is served."""

    document: Mapping[str, Any]
    body: bytes
    etag: str


#: Where the application keeps the routes that it describes.
DESCRIBED: web.AppKey[tuple[Route, ...]] = web.AppKey("described", tuple)


@lru_cache(maxsize=4)
def description(routes: tuple[Route, ...]) -> Description:
    """What these routes are, described once for as long as the process lives: it takes a tenth of a second."""
    document = describe(routes, version("harkara"))
    body = msgspec.json.encode(document)
    return Description(document, body, hashlib.sha256(body).hexdigest()[:32])


async def openapi(ctx: Context[None, None]) -> web.Response:
    """This description: OpenAPI 3.1."""
    told = await asyncio.to_thread(description, ctx.request.app[DESCRIBED])
    asked = ctx.request.if_none_match or ()
    known = any(one.value in (told.etag, "*") for one in asked)
    answer = web.Response(status=304) if known else web.Response(body=told.body, content_type=JSON)
    answer.etag = ETag(told.etag)
    answer.headers["Cache-Control"] = "no-cache"
    return answer


async def page(ctx: Context[None, None]) -> web.Response:
    """Swagger UI, to read and to try the API."""
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    return web.Response(text=PAGE, content_type="text/html", headers=headers)


async def asset(ctx: Context[None, None]) -> web.StreamResponse:
    """One of the files that the page needs."""
    wanted, name = ctx.request.match_info["version"], ctx.request.match_info["file"]
    headers = {"Cache-Control": FOR_EVER, "X-Content-Type-Options": "nosniff"}
    if wanted == VERSION and name == "start.js":
        return web.Response(text=START, content_type="text/javascript", headers=headers)
    if wanted != VERSION or name not in FILES:
        raise Problem(404, "there is no such file: open /docs")
    return web.FileResponse(UI / name, headers=headers | {"Content-Type": FILES[name]})
