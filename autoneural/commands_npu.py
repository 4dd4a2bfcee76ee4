"""What the sub-commands of the NPU chain call. Stages are imported when their command runs."""

from __future__ import annotations
