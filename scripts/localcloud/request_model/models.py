"""The models of all services, read as they are needed, and what is wrong with a request by them."""

from __future__ import annotations

import threading
from functools import cache

from botocore.loaders import Loader
from botocore.model import ServiceModel

from localcloud.operations import BOTOCORE_NAMES, Operation
from localcloud.request_model.allowances import is_allowed
from localcloud.request_model.constraints import Constraints
from localcloud.request_model.problems import Problem
from localcloud.request_model.requests import Input, WireRequest


class Models:
    """Inputs of operations by the models. Safe between threads. A service that botocore does not know, and an operation
    that it does not have, has none."""

    def __init__(self, loader: Loader | None = None) -> None:
        self._loader = loader or Loader()
        self._services: dict[str, tuple[ServiceModel, Constraints] | None] = {}
        self._inputs: dict[tuple[str, str], Input | None] = {}
        self._lock = threading.RLock()

    def input_of(self, service: str, operation: str) -> Input | None:
        """The input of an operation, if it has one; ``service`` as requests are signed or as botocore calls it."""
        key = (service, operation)
        if key not in self._inputs:
            with self._lock:
                self._inputs[key] = self._read(service, operation)
        return self._inputs[key]

    def is_read(self, service: str, operation: str) -> bool:
        """Whether ``input_of`` answers at once."""
        return (service, operation) in self._inputs

    def problems(self, service: str, operation: Operation, request: WireRequest) -> list[Problem]:
        """The problems for which the service would refuse the request."""
        found = self.input_of(service, operation.name)
        if found is None:
            return []
        name = BOTOCORE_NAMES.get(service, service)
        problems = found.problems(request, operation.protocol)
        return [each for each in problems if not is_allowed(name, operation.name, each)] if problems else problems

    def _read(self, service: str, operation: str) -> Input | None:
        name = BOTOCORE_NAMES.get(service, service)
        if name not in self._services:
            known = name in self._loader.list_available_services("service-2")
            self._services[name] = (self._model(name), Constraints()) if known else None
        found = self._services[name]
        if found is None or operation not in found[0].operation_names:
            return None
        return Input(found[0].operation_model(operation), found[1])

    def _model(self, name: str) -> ServiceModel:
        return ServiceModel(self._loader.load_service_model(name, "service-2"), name)


@cache
def shared_models() -> Models:
    """The models of this process: reading the one of EC2 takes a fifth of a second."""
    return Models()
