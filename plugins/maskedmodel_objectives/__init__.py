"""Objectives: what hidden tokens are compared with."""

from __future__ import annotations

from typing import Any

from maskedmodel import Objective, hookimpl
from maskedmodel_objectives.chamfer import Chamfer
from maskedmodel_objectives.codes import Codes
from maskedmodel_objectives.fourier import Fourier
from maskedmodel_objectives.latent import Latent
from maskedmodel_objectives.mixture import Mixture
from maskedmodel_objectives.patch import Patch


@hookimpl
def maskedmodel_objectives() -> list[type[Objective[Any]]]:
    return [Patch, Fourier, Latent, Codes, Chamfer, Mixture]
