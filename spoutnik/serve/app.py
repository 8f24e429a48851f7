"""The API as one ASGI app."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI

from spoutnik import __version__
from spoutnik.generation.service import GenerationService
from spoutnik.serve import errors
from spoutnik.serve.api import (
    adapters,
    chat,
    completions,
    control,
    embeddings,
    messages,
    models,
    ollama,
    ollama_models,
    props,
    responses,
    schemas,
)
from spoutnik.serve.api.common import Serving, State, require_json
from spoutnik.serve.errors import ApiError
from spoutnik.serve.settings import Settings
from spoutnik.serve.streams import StreamRegistry

DESCRIPTION = "A reasoning model of one's own, behind OpenAI's API."


def make_app(service: GenerationService, settings: Settings) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await service.close(settings.shutdown_seconds)

    # FastAPI's documentation pages would load scripts from elsewhere.
    app = FastAPI(title="Spoutnik", version=__version__, description=DESCRIPTION, lifespan=lifespan, docs_url=None,
                  redoc_url=None)
    app.state.serving = Serving(service, settings, StreamRegistry(settings.resume_seconds, settings.ping_seconds))
    for router in (chat.router, completions.router, control.router, models.router, models.tokens, responses.router,
                   embeddings.router, messages.router, adapters.router):
        app.include_router(router, prefix="/v1", dependencies=[Depends(require_json)])
        app.include_router(router, dependencies=[Depends(require_json)], include_in_schema=router is models.tokens)
    for router, prefix in ((ollama.router, "/api"), (ollama_models.router, "/api"), (props.router, "")):
        app.include_router(router, prefix=prefix, dependencies=[Depends(require_json)])
    app.get("/health", responses=errors.error_responses(503))(health)
    app.get("/version")(version)
    errors.install(app)
    _patch_openapi(app)
    return app


async def health(serving: State) -> schemas.Health:
    """200 while the default model can generate."""
    service, served = serving.service, serving.service.default
    if service.draining:
        raise ApiError(503, "the server is shutting down.", code="draining")
    if served.engine_thread is not None and served.engine_thread.broken:
        raise ApiError(503, f"the engine stopped: {served.engine_thread.broken}", code="broken")
    if served.llm is not None:
        served.llm.core.runner.check_files()
    if served.llm is None and served.loading is not None:
        if not served.loading.done():
            raise ApiError(503, "the model is being read.", code="loading")
        if served.loading.cancelled() or served.loading.exception() is not None:
            raise ApiError(503, f"the model cannot be used: {served.loading.exception()}", code="broken")
    return schemas.Health(status="ok", live=len(service.active))


async def version() -> dict[str, str]:
    return {"version": __version__}


def _patch_openapi(app: FastAPI) -> None:
    """The OpenAPI document without the 422 that FastAPI adds: wrong requests get 400 here."""
    make_document = app.openapi

    def openapi() -> dict:
        if app.openapi_schema is None:
            document = make_document()
            for path in document["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
            for unused in ("HTTPValidationError", "ValidationError"):
                document["components"]["schemas"].pop(unused, None)
        return app.openapi_schema

    app.openapi = openapi
