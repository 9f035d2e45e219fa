"""``disco render``: files from the registry (nginx, HAProxy), checked, replaced in one step, then reloaded.

`machine` decides what to do next and `fleet` what a template gets to see; both are pure. `templates`, `files` and `commands`
do it, `job` says for whom, and `renderer` puts them together. The proxy imports nothing of this.
"""

from __future__ import annotations

from .job import Job, Pair
from .renderer import Renderer, Told

__all__ = ["Job", "Pair", "Renderer", "Told"]
