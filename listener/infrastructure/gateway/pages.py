"""`/docs`: Swagger UI from the package's own files; nothing is asked of any other host."""

from importlib import resources
from typing import Final

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import RedirectResponse, Response

ASSETS: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
POLICY: Final = (
    "default-src 'self'; img-src 'self' data:; script-src 'self' 'unsafe-inline'; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
)
"""The page starts Swagger UI by a script of its own, inline."""


def pages_router(app: FastAPI) -> APIRouter:
    """`/`, `/docs` and what the page needs."""
    files = resources.files("fastapi_swagger.resources")
    contents = {name: files.joinpath(name).read_bytes() for name in ASSETS}
    router = APIRouter(include_in_schema=False)

    async def root() -> Response:
        return RedirectResponse("/docs")

    async def page() -> Response:
        html = get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=app.title,
            swagger_js_url="/docs/swagger-ui-bundle.js",
            swagger_css_url="/docs/swagger-ui.css",
            swagger_favicon_url="/docs/favicon-32x32.png",
        )
        html.headers["Content-Security-Policy"] = POLICY
        return html

    async def asset(name: str) -> Response:
        if name not in contents:
            return Response(status_code=404)
        headers = {"Cache-Control": "public, max-age=86400"}
        return Response(contents[name], 200, headers, ASSETS[name])

    router.add_api_route("/", root)
    router.add_api_route("/docs", page)
    router.add_api_route("/docs/{name}", asset)
    return router
