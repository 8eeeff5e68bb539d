"""CT windows: ranges of Hounsfield units."""

from __future__ import annotations

from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QWidget

from napari_dycon.session import Session
from napari_dycon.widgets.layers.case_layers import CaseLayers

# Usual radiology presets, as lowest and highest value shown.
WINDOWS_HU: dict[str, tuple[float, float] | None] = {
    "Full range": None,
    "Soft tissue": (-160.0, 240.0),
    "Brain": (0.0, 80.0),
    "Lung": (-1350.0, 150.0),
    "Bone": (-450.0, 1050.0),
}
DEFAULT = "Soft tissue"


class CtWindow(QWidget):
    """Selection of a CT window, visible only while a CT is shown."""

    def __init__(self, session: Session, layers: CaseLayers) -> None:
        super().__init__()
        self.session = session
        self.layers = layers
        self.choice = QComboBox()
        self.choice.addItems(list(WINDOWS_HU))
        self.choice.setCurrentText(DEFAULT)
        layers.ct_window = WINDOWS_HU[DEFAULT]
        self.choice.setToolTip("Range of Hounsfield units to display")
        self.choice.currentTextChanged.connect(lambda name: layers.set_ct_window(WINDOWS_HU[name]))
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(QLabel("CT window"))
        row.addWidget(self.choice, 1)
        session.case_shown.connect(self._refresh)
        self._refresh()

    def _refresh(self, *_: object) -> None:
        case = self.session.case
        self.setVisible(case is not None and case.is_ct)
