"""AutoNeural: a vision-language model made for NPUs, and the chain that takes it there.

The package root and everything under `runtime` import without torch; see docs/architecture.md.
"""

from autoneural.config import ModelConfig, preset
from autoneural.errors import UserError

__version__ = "0.1.0"
__all__ = ["ModelConfig", "UserError", "__version__", "preset"]
