"""`/v1/load_lora_adapter` and `/v1/unload_lora_adapter`, as vLLM has them: adapters come and go while the server runs."""

from pathlib import Path

from fastapi.responses import PlainTextResponse
from pydantic import Field

from spoutnik.errors import RunError, UserError, hide_paths
from spoutnik.locate import path_of
from spoutnik.serve.api.common import Body, Serving, State
from spoutnik.serve.errors import ApiError, error_responses
from spoutnik.serve.json_body import api_router

router = api_router()


class LoadRequest(Body):
    lora_name: str = Field(min_length=1, max_length=256, description="The model's name from then on.")
    lora_path: str = Field(min_length=1, description="Its folder, inside the server's folder of adapters.")
    load_inplace: bool | None = Field(None, description="Not supported: unload it first.")


class UnloadRequest(Body):
    lora_name: str = Field(min_length=1)


@router.post("/load_lora_adapter", responses=error_responses(400, 401, 403, 404, 413, 415), response_class=PlainTextResponse)
async def load(body: LoadRequest, serving: State) -> str:
    """Makes an adapter of the default model a model of its own."""
    folder = _allowed_folder(body.lora_path, serving)
    if body.load_inplace:
        raise ApiError(400, "load_inplace: is not supported, since replies under way keep the adapter that they began with. "
                       "Unload it, then load the other.", "load_inplace")
    try:
        await serving.service.load_adapter(body.lora_name, folder)
    except (UserError, RunError) as error:
        raise ApiError(400, hide_paths(str(error)), "lora_path") from error
    return f"Success: LoRA adapter '{body.lora_name}' added successfully."


@router.post("/unload_lora_adapter", responses=error_responses(400, 401, 403, 404, 413, 415), response_class=PlainTextResponse)
async def unload(body: UnloadRequest, serving: State) -> str:
    """Its name is free again; replies under way go on with it."""
    _adapters_folder(serving)
    try:
        await serving.service.unload_adapter(body.lora_name)
    except KeyError as error:
        raise ApiError(404, f"lora_name = {body.lora_name!r}: no adapter of this name is loaded.", "lora_name",
                       "model_not_found") from error
    return f"Success: LoRA adapter '{body.lora_name}' removed successfully."


def _adapters_folder(serving: Serving) -> Path:
    folder = serving.settings.runtime_adapters
    if folder is None:
        raise ApiError(403, "this server loads and unloads no adapters for clients. Start it with --runtime-adapters FOLDER to "
                       "allow those in that folder.")
    return folder.resolve()


def _allowed_folder(given: str, serving: Serving) -> Path:
    """The path of an adapter, if it lies in the folder that the server's owner allows; links are followed first."""
    root = _adapters_folder(serving)
    folder = (root / path_of(given)).resolve()
    if not folder.is_relative_to(root):
        raise ApiError(403, f"lora_path = {given!r}: lies outside of the folder that adapters may be loaded from.", "lora_path")
    if not folder.is_dir():
        raise ApiError(404, f"lora_path = {given!r}: there is no such folder among the adapters.", "lora_path")
    return folder
