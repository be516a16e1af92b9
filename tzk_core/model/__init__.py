"""The model: the shared flow, the knowledge in it, and several knowledge types at once."""

from tzk_core.model.composition import Composition as Composition
from tzk_core.model.flow import SharedFlow as SharedFlow
from tzk_core.model.tzk import TzK as TzK
