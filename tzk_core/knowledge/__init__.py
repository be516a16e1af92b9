"""Knowledge types: one, several by name or stacked, and those of the core."""

from tzk_core.knowledge.base import Knowledge as Knowledge
from tzk_core.knowledge.base import Presence as Presence
from tzk_core.knowledge.base import discriminate as discriminate
