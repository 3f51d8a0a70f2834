"""What the methods do. What there is they tell as over HTTP, and inference is answered by the endpoint of all protocols."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from service import __version__, errors
from service.core.models import Model, Models
from service.errors import Problem
from service.grpc.arrivals import Arrivals
from service.grpc.calls import head_of, send, timeout_ms_of
from service.grpc.inference import MESSAGE_TYPE, Inference, Message, problem_answer
from service.grpc.messages import CLASSES, SERVICE
from service.grpc.outline import Parser
from service.grpc.server_span import span_of
from service.http.app import App
from service.http.connection.refusals import too_many_headers
from service.http.dialects.dialect import NOTHING_ANNOUNCED
from service.http.dialects.open_inference.schemas import PLATFORM, tensors
from service.http.gates import Gate
from service.http.gates.api_keys import KeyGate
from service.http.gates.model_choice import ModelChoice, find_model
from service.http.head import Announcement, Head
from service.http.open_inference_routes import NAME, not_loaded_over
from service.http.problems import Answer
from service.http.routes import Probe

INFER_PATH: Final = f"/{SERVICE}/ModelInfer"
KEYLESS: Final = ("ServerLive", "ServerReady")

logger = logging.getLogger(__name__)


class InferenceService:
    """The methods of `inference.GRPCInferenceService`, by name in `methods`; each takes a call and gives its message.

    Args:
        app: Whose gates, endpoint and counters hold here too.
        models: That are served.
        probe: Tells whether the server is alive and ready.
        arrivals: Take the messages of calls.
        max_headers: Metadata of a call, at most.
        max_crops: Images of a request, at most.
    """

    def __init__(
        self, app: App, models: Models[Model], probe: Probe, arrivals: Arrivals, *, max_headers: int, max_crops: int
    ) -> None:
        self._observer, self._problems, self._endpoint = app.observer, app.problems, app.endpoint
        self._models = models
        self._probe = probe
        self._arrivals = arrivals
        self._max_headers = max_headers
        self._gates: list[Gate] = [app.ids]
        if app.api_keys is not None:
            self._gates.append(KeyGate(app.api_keys, _wants_key))
        self._gates.append(app.addresses)
        self._model_choice = ModelChoice(models)
        self._inference = Inference(max_crops)
        self._parsers = {
            method: Parser(CLASSES[f"{method}Request"], max_crops) for method in ("ModelReady", "ModelMetadata", "ModelInfer")
        }
        self.methods: dict[str, Callable[[Any, Any], Awaitable[bytes]]] = {
            "ModelInfer": self._model_infer,
            **{
                method: self._answering(method, answer)
                for method, answer in {
                    "ServerLive": self._server_live,
                    "ServerReady": self._server_ready,
                    "ServerMetadata": self._server_metadata,
                    "ModelReady": self._model_ready,
                    "ModelMetadata": self._model_metadata,
                    "RepositoryIndex": self._repository_index,
                    "RepositoryModelLoad": _refuse_to_load,
                    "RepositoryModelUnload": _refuse_to_load,
                }.items()
            },
        }

    def _answering(self, method: str, answer: Callable[[Any], Any]) -> Callable[[Any, Any], Awaitable[bytes]]:
        """A method that needs no crops; `answer` gives the message for a parsed one."""
        parser = self._parsers.get(method)

        async def respond(_requests: Any, context: Any) -> bytes:
            head = head_of(context, f"/{SERVICE}/{method}")
            try:
                self._pass_gates(head)
                data, holding = await self._arrivals.take(head.client, context.read)
                self._arrivals.release(holding)
                message = answer(parser.parse(data) if parser else None)
                told = Answer(200, message.SerializeToString(), MESSAGE_TYPE)
            except Exception as error:
                told = self._failed(error)
            return await send(told, context, head)

        return respond

    def _pass_gates(self, head: Head) -> None:
        for gate in self._gates:
            if (problem := gate.check(head)) is not None:
                raise problem
        if len(head.lines) > self._max_headers:
            raise too_many_headers(self._max_headers)

    async def _model_infer(self, _requests: Any, context: Any) -> bytes:
        """Answer one inference request."""
        head = head_of(context, INFER_PATH)
        head.announced = NOTHING_ANNOUNCED  # what is wanted stands in the message
        sent = partial(send, context=context, head=head)
        return await self._observer.observe(head, self._infer(head, context), sent, span_of)

    async def _infer(self, head: Head, context: Any) -> Answer:
        """The answer to a request, of which only the head is known so far."""
        holding = None
        try:
            self._pass_gates(head)
            data, holding = await self._arrivals.take(head.client, context.read)
            body = Message(self._parsers["ModelInfer"].parse(data), timeout_ms_of(context))
            del data
            head.announced = Announcement(None, body.request.model_name, body.request.model_version or None)
            if (problem := self._model_choice.check(head)) is not None:
                raise problem
            return await self._recognize(head, body)
        except Exception as error:
            return self._failed(error)
        finally:
            if holding is not None:
                self._arrivals.release(holding)

    def _failed(self, error: Exception) -> Answer:
        """The answer to a call that failed."""
        if isinstance(error, Problem):
            return self._problems.answer(error.bare(), problem_answer)
        logger.error("a call failed", exc_info=error)
        return self._problems.answer(Problem(errors.INTERNAL, "The server failed on this call."), problem_answer)

    async def _recognize(self, head: Head, body: Message) -> Answer:
        """Read the crops. When the call is cancelled, by its client or at the end of the drain, so are they."""
        # In a task of its own, which is told that nobody waits any more; being cancelled means something else to it.
        answering = asyncio.ensure_future(self._endpoint.answer(self._inference, head, body))
        try:
            return await asyncio.shield(answering)
        except asyncio.CancelledError:
            body.left.set()
            await answering
            raise

    def _server_live(self, _request: Any) -> Any:
        return CLASSES["ServerLiveResponse"](live=self._probe.alive)

    def _server_ready(self, _request: Any) -> Any:
        return CLASSES["ServerReadyResponse"](ready=self._probe.ready)

    def _server_metadata(self, _request: Any) -> Any:
        return CLASSES["ServerMetadataResponse"](name=NAME, version=__version__)

    def _model_ready(self, request: Any) -> Any:
        self._find(request)
        return CLASSES["ModelReadyResponse"](ready=self._probe.ready)

    def _model_metadata(self, request: Any) -> Any:
        model = self._find(request)
        response = CLASSES["ModelMetadataResponse"](name=request.name, versions=[model.version], platform=PLATFORM)
        for side, described in tensors(model.metadata).items():
            for tensor in described:
                getattr(response, side).add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
        return response

    def _repository_index(self, _request: Any) -> Any:
        state = "READY" if self._probe.ready else "UNAVAILABLE"
        response = CLASSES["RepositoryIndexResponse"]()
        for model in self._models:
            response.models.add(name=model.name, version=model.version, state=state)
        return response

    def _find(self, request: Any) -> Model:
        return find_model(self._models, request.name, request.version or None)


def _wants_key(path: str) -> bool:
    return path.rpartition("/")[2] not in KEYLESS


def _refuse_to_load(_request: Any) -> Any:
    raise not_loaded_over("gRPC")
