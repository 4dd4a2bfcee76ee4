"""The chips we know: which HTP generation they carry and what the compiler calls them.

`soc_model` is what decides (it overrides any architecture given beside it; an unknown one is
silently compiled with default rules, so only chips of this table are accepted).
"""

from __future__ import annotations

from dataclasses import dataclass

from autoneural.errors import UserError

_AI_HUB = "qai-hub-models 0.65 device table"
_SCHEMA = "VTCM: executorch qc_schema.py"


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One SoC. `vtcm_mb` None and `weight_sharing` None: not published anywhere we read.

    `fp16` and `weight_sharing` are what Qualcomm's public tables say; what the compiler says is in
    the oracle (`autoneural.target.legality`).
    """

    name: str
    htp: int
    soc_model: int
    vtcm_mb: int | None
    fp16: bool
    weight_sharing: bool | None
    note: str = ""
    source: str = f"{_AI_HUB}; {_SCHEMA}"

    @property
    def generation(self) -> str:
        """`v68` and so on: chips of one generation compute alike."""
        return f"v{self.htp}"

    @property
    def key(self) -> str:
        """Name in folders and in targets: `htp/X-Elite`."""
        return self.name.replace(" ", "-")

    @property
    def target(self) -> str:
        """Name of the target of a bundle that holds this chip's binaries."""
        return f"htp/{self.key}"


CHIPS: tuple[Chip, ...] = (
    Chip(
        name="SA8295P",
        htp=68,
        soc_model=39,
        vtcm_mb=8,
        fp16=True,
        weight_sharing=True,
        note="cockpit; the only v68 with fp16 in Qualcomm's table",
    ),
    Chip(name="SM8350", htp=68, soc_model=30, vtcm_mb=4, fp16=False, weight_sharing=False),
    Chip(name="QCS6490", htp=68, soc_model=93, vtcm_mb=2, fp16=False, weight_sharing=False),
    Chip(name="SM8450", htp=69, soc_model=36, vtcm_mb=8, fp16=True, weight_sharing=False),
    Chip(name="SM8550", htp=73, soc_model=43, vtcm_mb=8, fp16=True, weight_sharing=True),
    Chip(
        name="SA8255P",
        htp=73,
        soc_model=52,
        vtcm_mb=8,
        fp16=True,
        weight_sharing=True,
        note="same soc_model as SA8775P and SA8650P: one binary for the three",
    ),
    Chip(name="SA8775P", htp=73, soc_model=52, vtcm_mb=8, fp16=True, weight_sharing=True),
    Chip(name="SA8650P", htp=73, soc_model=52, vtcm_mb=8, fp16=True, weight_sharing=True),
    Chip(name="QCS9075", htp=73, soc_model=77, vtcm_mb=8, fp16=True, weight_sharing=True),
    Chip(name="X Elite", htp=73, soc_model=60, vtcm_mb=None, fp16=True, weight_sharing=True),
    Chip(name="SA7255P", htp=75, soc_model=67, vtcm_mb=None, fp16=True, weight_sharing=True),
    Chip(name="SM8650", htp=75, soc_model=57, vtcm_mb=8, fp16=True, weight_sharing=True),
    Chip(name="SM8750", htp=79, soc_model=69, vtcm_mb=8, fp16=True, weight_sharing=True),
    Chip(name="SM8850", htp=81, soc_model=87, vtcm_mb=8, fp16=True, weight_sharing=True),
    Chip(name="X2 Elite", htp=81, soc_model=88, vtcm_mb=None, fp16=True, weight_sharing=True),
)
DEFAULT_CHIP = "SA8295P"


def find_chip(name: str) -> Chip:
    """The chip called `name`, in any case, with or without spaces and hyphens.

    Raises UserError listing the names.
    """
    wanted = _plain(name)
    for chip in CHIPS:
        if _plain(chip.name) == wanted:
            return chip
    known = ", ".join(chip.name for chip in CHIPS)
    raise UserError(f"no chip called {name!r}; one of {known} (see `autoneural chips`)")


def recognise(text: str) -> Chip | None:
    """The chip whose name stands in `text`, which is how a system describes itself."""
    plain = _plain(text)
    return next((chip for chip in CHIPS if _plain(chip.name) in plain), None)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
