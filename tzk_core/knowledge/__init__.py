"""Knowledge types: what one is, several by name or stacked, and those that the core registers."""

from tzk_core.knowledge.base import Knowledge as Knowledge
from tzk_core.knowledge.base import Presence as Presence
from tzk_core.knowledge.base import discriminate as discriminate
