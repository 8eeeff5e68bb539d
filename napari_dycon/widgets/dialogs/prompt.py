"""Prompts and warnings in message boxes."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QMessageBox, QWidget

from napari_dycon.application.prompts import UserPrompt
from napari_dycon.core.text import escape_control_characters
from napari_dycon.errors import DyconError
from napari_dycon.session import Session


def show_prompt(parent: QWidget, session: Session, prompt: UserPrompt) -> bool:
    """Show a prompt and run the selected choice; returns whether it succeeded.

    Cancel is the default.
    """
    text, _, details = prompt.text.partition("\n\n")
    box = QMessageBox(QMessageBox.Icon.Question, prompt.title, "", parent=parent)
    box.setTextFormat(Qt.TextFormat.PlainText)  # it contains untrusted names
    box.setText(escape_control_characters(text))
    box.setInformativeText(escape_control_characters(details))
    buttons = {
        box.addButton(text, QMessageBox.ButtonRole.AcceptRole): chosen
        for text, chosen in prompt.choices
    }
    cancel = box.addButton(QMessageBox.StandardButton.Cancel)
    box.setDefaultButton(cancel)
    box.setEscapeButton(cancel)
    box.exec()
    try:
        clicked = box.clickedButton()
        box.deleteLater()
    except RuntimeError:  # the window was closed during the prompt
        return False
    for button, chosen in buttons.items():
        if clicked is button:
            try:
                chosen()
            except DyconError as error:
                session.message.emit("error", str(error))
                return False
            return True
    return False


def show_warning_box(parent: QWidget, title: str, text: str) -> None:
    """Show a warning as plain text, since it may contain untrusted names."""
    box = QMessageBox(QMessageBox.Icon.Warning, title, "", parent=parent)
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.setText(escape_control_characters(text))
    box.exec()
    box.deleteLater()
