"""The whole server as one ASGI app."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from fastapi.responses import JSONResponse

from spoutnik import __version__
from spoutnik.generation.service import GenerationService
from spoutnik.serve import errors
from spoutnik.serve.api import chat, completions, control, embeddings, models, responses
from spoutnik.serve.api.common import Serving, State, json_body
from spoutnik.serve.settings import Settings
from spoutnik.serve.streams import Streams

ABOUT = "A reasoning model of one's own, behind OpenAI's API."


def make_app(service: GenerationService, settings: Settings) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await service.close(settings.shutdown_seconds)

    # FastAPI's pages of documentation would load scripts from elsewhere.
    app = FastAPI(title="Spoutnik", version=__version__, description=ABOUT, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.serving = Serving(service, settings, Streams(settings.resume_seconds, settings.ping_seconds))
    for router in (chat.router, completions.router, control.router, models.router, models.tokens, responses.router,
                   embeddings.router):
        app.include_router(router, prefix="/v1", dependencies=[Depends(json_body)])
        app.include_router(router, dependencies=[Depends(json_body)], include_in_schema=router is models.tokens)
    app.get("/health", responses=errors.may_fail(503))(health)
    app.get("/version")(version)
    errors.install(app)
    describe(app)
    return app


async def health(serving: State) -> JSONResponse:
    """200 while replies can be made."""
    service, served = serving.service, serving.service.default
    if service.draining:
        return errors.ApiError(503, "the server is shutting down.", code="draining").response
    if served.engine_thread is not None and served.engine_thread.broken:
        return errors.ApiError(503, f"the engine stopped: {served.engine_thread.broken}", code="broken").response
    if served.llm is None and served.loading is not None:
        if not served.loading.done():
            return errors.ApiError(503, "the model is being read.", code="loading").response
        if served.loading.cancelled() or served.loading.exception() is not None:
            return errors.ApiError(503, f"the model cannot be used: {served.loading.exception()}", code="broken").response
    return JSONResponse({"status": "ok", "live": len(service.active)})


async def version() -> dict:
    return {"version": __version__}


def describe(app: FastAPI) -> None:
    """The OpenAPI document without the statuses that FastAPI would have used for wrong requests."""
    made = app.openapi

    def openapi() -> dict:
        if app.openapi_schema is None:
            document = made()
            for path in document["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
            for unused in ("HTTPValidationError", "ValidationError"):
                document["components"]["schemas"].pop(unused, None)
        return app.openapi_schema

    app.openapi = openapi
